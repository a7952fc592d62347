-- Shared by the registry's scripts; stands after the buffer's lib.lua.

local KEPT_RECENT, AGE_FACTOR, AGE_FLOOR_MS = 3, 10, 1000  -- as in payloads.py

-- Nil when `expected` ('' for none) serves now, else the refusal.
local function fence_champion(champions, task, expected)
  local champion = redis.call('HGET', champions, task) or ''
  if champion ~= expected then
    return refuse("the champion of task " .. task .. " is '" .. champion .. "', not '" .. expected .. "'")
  end
  return nil
end

-- A kept snapshot loses its bytes, and its checkpoint if nothing else stands on it.
local function drop(order, id, keys)
  local step = redis.call('HGET', keys.kept, id)
  redis.call('ZREM', order, id)
  redis.call('HDEL', keys.payloads, id)
  redis.call('HDEL', keys.kept, id)
  drop_checkpoint(keys.checkpoints, keys.kept, redis.call('HGET', keys.state, 'step') or '0', step)
end

-- A refusal when a snapshot belongs to another base than the task learns on, else nil.
local function fence_base(keys, task, id)
  local base = redis.call('HGET', keys.state, 'base')
  local record = redis.call('HGET', keys.manifests, id)
  local own = record and cjson.decode(record).manifest.base
  if base and own and own ~= base then
    return redis.error_reply('SNAPSHOT snapshot ' .. id .. ' belongs to base ' .. string.sub(own, 1, 12)
      .. ', task ' .. task .. ' learns on ' .. string.sub(base, 1, 12)
      .. ': change the base back first')
  end
  return nil
end

-- Delete the champion that a purge left, whether or not another serves now.
local function end_purge(task, keys, id)
  if redis.call('HGET', keys.champions, task) == id then redis.call('HDEL', keys.champions, task) end
  for _, order in ipairs({keys.promotions, keys.held}) do redis.call('ZREM', order, id) end
  redis.call('HDEL', keys.payloads, id)
  redis.call('HDEL', keys.kept, id)
  redis.call('HDEL', keys.state, 'purging')
end

-- Leave a line of steps: what follows grows from `base` (steps are never used twice).
local function fork(forks, keys, base)
  local last = redis.call('HGET', keys.state, 'last_step') or '0'
  redis.call('HINCRBY', keys.state, 'branch', 1)
  redis.call('RPUSH', forks, last .. ':' .. base)
end

-- Numbers that order a task's snapshots.
local function next_number(keys)
  return redis.call('HINCRBY', keys.state, 'registry_sequence', 1)
end

-- What may not be dropped: the champion, what a person chose last, what the gate compares with, and
-- the champions that were left at changes of base (state's fields "champion:BASE").
local function spared(task, keys)
  local ids, state = {}, redis.call('HGETALL', keys.state)
  for at = 1, #state, 2 do
    local field = state[at]
    if field == 'chosen' or field == 'reference' or string.sub(field, 1, 9) == 'champion:' then
      ids[state[at + 1]] = true
    end
  end
  local champion = redis.call('HGET', keys.champions, task)
  if champion then ids[champion] = true end
  return ids
end

local function drop_held(task, most, keys)
  local ids, safe = redis.call('ZRANGE', keys.held, 0, -1), spared(task, keys)
  local beyond = #ids - most
  for _, id in ipairs(ids) do
    if beyond <= 0 then return end
    if not safe[id] then
      drop(keys.held, id, keys)
      beyond = beyond - 1
    end
  end
end

-- Thin promoted snapshots by age; the rule and its promise are in `payloads.thinned`.
local function thin_promotions(task, most, keys)
  local ids, safe = redis.call('ZRANGE', keys.promotions, 0, -1), spared(task, keys)
  local ages, now_ms = redis.call('HMGET', keys.promoted, unpack(ids)), 0
  for at, at_ms in ipairs(ages) do
    ages[at] = tonumber(at_ms)
    now_ms = math.max(now_ms, ages[at])
  end
  for at, at_ms in ipairs(ages) do
    ages[at] = now_ms - at_ms + AGE_FLOOR_MS
  end
  local kept, last = {ids[1]}, ages[1]
  for at = 2, #ids do
    local near = at <= #ids - KEPT_RECENT and last <= AGE_FACTOR * ages[at + 1]
    if near and not safe[ids[at]] then
      drop(keys.promotions, ids[at], keys)
    else
      kept[#kept + 1], last = ids[at], ages[at]
    end
  end
  local beyond = #kept - most
  for _, id in ipairs(kept) do
    if beyond <= 0 then return end
    if not safe[id] then
      drop(keys.promotions, id, keys)
      beyond = beyond - 1
    end
  end
end

-- The pointer moves last, after everything that it leads to is stored.  A snapshot keeps its place
-- among the promotions when it serves again.
local function serve(task, id, now_ms, most, keys)
  redis.call('ZREM', keys.held, id)
  redis.call('ZADD', keys.promotions, 'NX', next_number(keys), id)
  redis.call('HSETNX', keys.promoted, id, now_ms)
  redis.call('HSET', keys.champions, task, id)
  thin_promotions(task, most, keys)
end

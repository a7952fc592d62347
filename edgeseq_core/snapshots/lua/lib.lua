-- Shared by the registry's scripts; stands after the buffer's lib.lua.

-- Nil when `expected` ('' for none) serves now, else the refusal.
local function fence_champion(champions, task, expected)
  local champion = redis.call('HGET', champions, task) or ''
  if champion ~= expected then
    return refuse("the champion of task " .. task .. " is '" .. champion .. "', not '" .. expected .. "'")
  end
  return nil
end

-- A kept snapshot loses its bytes, and its checkpoint if nothing else stands on it.
local function drop_oldest(order, keep, keys)
  while redis.call('ZCARD', order) > keep do
    local id = redis.call('ZRANGE', order, 0, 0)[1]
    local step = redis.call('HGET', keys.kept, id)
    redis.call('ZREM', order, id)
    redis.call('HDEL', keys.payloads, id)
    redis.call('HDEL', keys.kept, id)
    drop_checkpoint(keys.checkpoints, keys.kept, redis.call('HGET', keys.state, 'step') or '0', step)
  end
end

local function append(order, id, keys)
  redis.call('ZADD', order, redis.call('HINCRBY', keys.state, 'registry_sequence', 1), id)
end

-- The pointer moves last, after everything that it leads to is stored.
local function serve(task, id, now_ms, keep, keys)
  redis.call('ZREM', keys.held, id)
  append(keys.promotions, id, keys)
  redis.call('HSETNX', keys.promoted, id, now_ms)
  redis.call('HSET', keys.champions, task, id)
  drop_oldest(keys.promotions, keep, keys)
end

-- Shared by every script: this file is put in front of each before it is loaded.

local CHUNK = 1000  -- arguments that one call unpacks
local NAME_BYTES = 16  -- a stored record begins with the digest of its pair's name
local SOURCE_BYTES = 16  -- what a task remembers begins with the digest of the source

local function refuse(text)
  return redis.error_reply('FENCED ' .. text)
end

-- Nil when `epoch` is the current owner's, else the refusal.
local function fence(epoch_key, role, epoch)
  local current = redis.call('GET', epoch_key) or '0'
  if current ~= epoch then
    return refuse('the ' .. role .. "'s epoch is " .. current .. ', not ' .. epoch
      .. ': another owner has taken over')
  end
  return nil
end

-- Add to a counter; Lua writes a zero as "-0" at times, which Redis refuses.
local function bump(counters, field, delta)
  if delta ~= 0 then redis.call('HINCRBY', counters, field, delta) end
end

local function in_chunks(items, act)
  for first = 1, #items, CHUNK do
    act(unpack(items, first, math.min(first + CHUNK - 1, #items)))
  end
end

-- An outcome is "state|step|detail|key".
local function outcome_of(value)
  return string.match(value, '^([^|]*)|([^|]*)|([^|]*)|(.*)$')
end

-- Change what became of a pair, if its id is still remembered for this very pair.
local function settle(outcomes, name, key, state, step)
  local value = redis.call('HGET', outcomes, name)
  if value then
    local _, _, _, owner = outcome_of(value)
    if owner == key then
      redis.call('HSET', outcomes, name, state .. '|' .. step .. '||' .. key)
    end
  end
end

-- Drop at most `at_once` ids older than a time, and as many above a count.
local function forget_ids(outcomes, seen, before_ms, keep, at_once)
  local function drop(names)
    in_chunks(names, function(...)
      redis.call('ZREM', seen, ...)
      redis.call('HDEL', outcomes, ...)
    end)
  end
  drop(redis.call('ZRANGEBYSCORE', seen, '-inf', '(' .. before_ms, 'LIMIT', 0, at_once))
  local above = math.min(redis.call('ZCARD', seen) - keep, at_once)
  if above > 0 then
    drop(redis.call('ZRANGE', seen, 0, above - 1))
  end
end

-- Keep the operator's view of a task's fresh part in step with its sets.
local function note_waiting(waiting, task, corrections_key, bulk_key)
  local corrections, bulk = redis.call('ZCARD', corrections_key), redis.call('ZCARD', bulk_key)
  if corrections + bulk == 0 then
    redis.call('HDEL', waiting, task)
  else
    redis.call('HSET', waiting, task, corrections .. ',' .. bulk)
  end
end

-- The records of some keys, without their name prefix, as a flat list key, record, key, record ...
local function append_records(out, records, keys)
  in_chunks(keys, function(...)
    local some = {...}
    for i, value in ipairs(redis.call('HMGET', records, ...)) do
      out[#out + 1] = some[i]
      out[#out + 1] = string.sub(value, NAME_BYTES + 1)
    end
  end)
end

-- Evict the largest priorities.  A pair stays while the bytes before it leave room for the largest
-- record: then whether it stays does not depend on its own size, and the sample is uniform.
local function shrink_reservoir(counters, records, notes, reservoir, budget, share)
  local stored = redis.call('HMGET', counters, 'bytes:reservoir', 'largest_bytes')
  local held, before = tonumber(stored[1] or 0), tonumber(stored[1] or 0)
  local room = budget - math.min(tonumber(stored[2] or 0), math.floor(budget / share))
  local threshold
  while true do
    local top = redis.call('ZRANGE', reservoir, -1, -1, 'WITHSCORES')
    if not top[1] then break end
    local size = redis.call('HSTRLEN', records, top[1]) - NAME_BYTES + redis.call('HSTRLEN', notes, top[1])
    if held <= budget and held - size <= room then break end
    redis.call('ZREM', reservoir, top[1])
    redis.call('HDEL', records, top[1])
    redis.call('HDEL', notes, top[1])
    held, threshold = held - size, top[2]
  end
  if threshold then
    redis.call('HSET', counters, 'threshold', threshold)
    bump(counters, 'bytes:reservoir', held - before)
  end
end

-- Drop all that a learner kept beside the pairs of a reservoir.
local function drop_notes(counters, notes)
  local freed = 0
  for _, note in ipairs(redis.call('HVALS', notes)) do freed = freed + #note end
  redis.call('DEL', notes)
  bump(counters, 'bytes:reservoir', -freed)
end

-- Forget what a source was corrected to; returns the bytes that it took.
local function forget_told(memory, ages, source)
  local size = redis.call('HSTRLEN', memory, source)
  if redis.call('HDEL', memory, source) == 0 then return 0 end
  redis.call('ZREM', ages, source)
  return SOURCE_BYTES + size
end

-- Forget what sources were corrected to, unless they were corrected again meanwhile; ARGV[first..last] has
-- for each its digest and the correction that goes.  Returns the bytes that they took.
local function forget_equal(memory, ages, first, last)
  local bytes = 0
  for at = first, last, 2 do
    if redis.call('HGET', memory, ARGV[at]) == ARGV[at + 1] then
      bytes = bytes + forget_told(memory, ages, ARGV[at])
    end
  end
  return bytes
end

-- Delete a checkpoint unless the learner or a kept snapshot stands on it.
local function drop_checkpoint(checkpoints, kept, current, step)
  if step == current then return end
  for _, used in ipairs(redis.call('HVALS', kept)) do
    if used == step then return end
  end
  redis.call('HDEL', checkpoints, step)
end

-- Replace records by those of another vocabulary; what does not fit is held and not remembered any more,
-- what fits again let out.
-- KEYS: epochs of consumer and learner, outcomes, waiting, partition counters, quarantine, tasks,
--       counters, records, the parts corrections, bulk, recent, probe, reservoir, memory, its sources by
--       age, notes
-- ARGV: task, the two epochs, default settings, largest share, number of corrections that the memory
--       holds of pairs that are held from now on, for each its source's digest and what it says; then for each pair: key, number of
--       origin and of destination (0: the quarantine), name (out of the quarantine: its field), data
-- Returns how many pairs were there.
local PARTS = {'corrections', 'bulk', 'recent', 'probe', 'reservoir'}
local outcomes, waiting, partition, quarantine = KEYS[3], KEYS[4], KEYS[5], KEYS[6]
local counters, records = KEYS[8], KEYS[9]
local task, share = ARGV[1], tonumber(ARGV[5])
local refusal = fence(KEYS[1], 'consumer', ARGV[2]) or fence(KEYS[2], 'learner', ARGV[3])
if refusal then return refusal end

local stored = redis.call('HMGET', counters, 'largest_bytes', 'sequence')
local largest, sequence = tonumber(stored[1] or 0), tonumber(stored[2] or 0)
local budget = cjson.decode(redis.call('HGET', KEYS[7], task) or ARGV[4]).reservoir_bytes
-- The first write: one that Redis refuses when memory is full, so that nothing is half-written.
redis.call('HSET', counters, 'sequence', sequence)
drop_notes(counters, KEYS[17])  -- in the words of the other vocabulary
local fits = math.floor(budget / share)
local bytes, held_bytes, found = {0, 0, 0, 0, 0}, 0, 0

local function hold(key, origin, name, data, size)
  redis.call('ZREM', KEYS[9 + origin], key)
  redis.call('HDEL', records, key)
  bytes[origin] = bytes[origin] - size
  local taken = redis.call('HEXISTS', quarantine, name) == 1  -- by an older pair of the same id
  redis.call('HSET', quarantine, taken and name .. key or name, data)
  held_bytes = held_bytes + #data
  local value = redis.call('HGET', outcomes, name)
  if value then
    local _, _, _, owner = outcome_of(value)
    if owner == key then redis.call('HSET', outcomes, name, 'quarantined|0|too_long|') end
  end
end

local function let_out(key, destination, field, data)
  local size, name = redis.call('HSTRLEN', quarantine, field), string.sub(field, 1, NAME_BYTES)
  if size == 0 then return false end
  redis.call('HDEL', quarantine, field)
  held_bytes = held_bytes - size
  sequence = sequence + 1
  redis.call('HSET', records, key, name .. data)
  redis.call('ZADD', KEYS[9 + destination], sequence, key)
  bytes[destination] = bytes[destination] + #data
  if redis.call('HGET', outcomes, name) == 'quarantined|0|too_long|' then
    redis.call('HSET', outcomes, name, 'waiting|0||' .. key)
  end
  return true
end

local first = 7 + 2 * tonumber(ARGV[6])
bump(counters, 'bytes:memory', -forget_equal(KEYS[15], KEYS[16], 7, first - 1))
for at = first, #ARGV, 5 do
  local key, name, data = ARGV[at], ARGV[at + 3], ARGV[at + 4]
  local origin, destination = tonumber(ARGV[at + 1]), tonumber(ARGV[at + 2])
  if origin == 0 then
    if let_out(key, destination, name, data) then found = found + 1 end
  elseif redis.call('ZSCORE', KEYS[9 + origin], key) then
    local size = redis.call('HSTRLEN', records, key) - NAME_BYTES
    found = found + 1
    if destination == 0 then
      hold(key, origin, name, data, size)
    else
      redis.call('HSET', records, key, name .. data)
      bytes[origin] = bytes[origin] + #data - size
      if PARTS[origin] == 'reservoir' and #data <= fits then largest = math.max(largest, #data) end
    end
  end
end
for part, delta in ipairs(bytes) do
  bump(counters, 'bytes:' .. PARTS[part], delta)
end
redis.call('HSET', counters, 'largest_bytes', largest, 'sequence', sequence)
shrink_reservoir(counters, records, KEYS[17], KEYS[14], budget, share)
bump(partition, 'fresh_bytes', bytes[1] + bytes[2])
bump(partition, 'quarantine_bytes', held_bytes)
note_waiting(waiting, task, KEYS[10], KEYS[11])
return found

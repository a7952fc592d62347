-- Forget some pairs of a task, wherever they are by now.  Frees memory, so it runs on a full store too.
-- KEYS: outcomes, waiting, partition counters, quarantine, counters, records, state, journal, then the
--       parts corrections, bulk, recent, probe, reservoir, and notes
-- ARGV: task, purge id, number of pair keys, the pair keys, then names of quarantined pairs
-- Returns how many were forgotten.  The journal gets their keys, without any text; a task whose learner
-- may have taken one of them is tainted from now on.
local PARTS = {'corrections', 'bulk', 'recent', 'probe', 'reservoir'}
local BULK = 2  -- the last of the fresh parts
local TOO_LONG = 'too_long'  -- held by a change of base: a calibration of the former one may know it
local outcomes, waiting, partition, quarantine = KEYS[1], KEYS[2], KEYS[3], KEYS[4]
local counters, records = KEYS[5], KEYS[6]
local last_key = 3 + tonumber(ARGV[3])
local bytes, removed, freed, held = {0, 0, 0, 0, 0}, 0, 0, 0
local fresh, taken, tainted = {}, {}, false

for at = 4, last_key do
  local key = ARGV[at]
  local record = redis.call('HGET', records, key)
  if record then
    redis.call('HDEL', records, key)
    for part in ipairs(PARTS) do
      if redis.call('ZREM', KEYS[8 + part], key) == 1 then
        bytes[part] = bytes[part] + #record - NAME_BYTES + redis.call('HSTRLEN', KEYS[14], key)
        local list = part <= BULK and fresh or taken
        list[#list + 1] = '"' .. key .. '"'
      end
    end
    redis.call('HDEL', KEYS[14], key)
    settle(outcomes, string.sub(record, 1, NAME_BYTES), key, 'forgotten', '0')
    removed = removed + 1
  end
end
for at = last_key + 1, #ARGV do
  local data = redis.call('HGET', quarantine, ARGV[at]) or ''
  local size = #data
  if redis.call('HDEL', quarantine, ARGV[at]) == 1 then
    tainted = tainted or string.find(data, '\0' .. TOO_LONG .. '\0', 1, true)
    settle(outcomes, ARGV[at], '', 'forgotten', '0')
    removed, freed, held = removed + 1, freed + size, held + 1
  end
end
if removed > 0 then
  for part, size in ipairs(bytes) do
    bump(counters, 'bytes:' .. PARTS[part], -size)
  end
  bump(counters, 'forgotten', removed)
  bump(partition, 'fresh_bytes', -bytes[1] - bytes[2])
  bump(partition, 'quarantine_bytes', -freed)
  note_waiting(waiting, ARGV[1], KEYS[9], KEYS[10])
  table.sort(fresh)
  table.sort(taken)
  redis.call('RPUSH', KEYS[8], '{"kind":"remove","purge":"' .. ARGV[2] .. '","fresh":['
    .. table.concat(fresh, ',') .. '],"taken":[' .. table.concat(taken, ',') .. '],"held":' .. held .. '}')
  if tainted or #taken > 0 then redis.call('HSET', KEYS[7], 'tainted', 1) end
end
return removed

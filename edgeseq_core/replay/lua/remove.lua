-- Forget some pairs of a task, wherever they are by now.  Frees memory, so it runs on a full store too.
-- KEYS: outcomes, waiting, partition counters, quarantine, counters, records, then the parts
--       corrections, bulk, recent, probe, reservoir
-- ARGV: task, number of pair keys, the pair keys, then names of quarantined pairs
-- Returns how many were forgotten.
local PARTS = {'corrections', 'bulk', 'recent', 'probe', 'reservoir'}
local outcomes, waiting, partition, quarantine = KEYS[1], KEYS[2], KEYS[3], KEYS[4]
local counters, records = KEYS[5], KEYS[6]
local last_key = 2 + tonumber(ARGV[2])
local bytes, removed, freed = {0, 0, 0, 0, 0}, 0, 0

for at = 3, last_key do
  local key = ARGV[at]
  local record = redis.call('HGET', records, key)
  if record then
    redis.call('HDEL', records, key)
    for part in ipairs(PARTS) do
      if redis.call('ZREM', KEYS[6 + part], key) == 1 then
        bytes[part] = bytes[part] + #record - NAME_BYTES
      end
    end
    settle(outcomes, string.sub(record, 1, NAME_BYTES), key, 'forgotten', '0')
    removed = removed + 1
  end
end
for at = last_key + 1, #ARGV do
  local size = redis.call('HSTRLEN', quarantine, ARGV[at])
  if redis.call('HDEL', quarantine, ARGV[at]) == 1 then
    settle(outcomes, ARGV[at], '', 'forgotten', '0')
    removed, freed = removed + 1, freed + size
  end
end
if removed > 0 then
  for part, size in ipairs(bytes) do
    bump(counters, 'bytes:' .. PARTS[part], -size)
  end
  bump(counters, 'forgotten', removed)
  bump(partition, 'fresh_bytes', -bytes[1] - bytes[2])
  bump(partition, 'quarantine_bytes', -freed)
  note_waiting(waiting, ARGV[1], KEYS[7], KEYS[8])
end
return removed

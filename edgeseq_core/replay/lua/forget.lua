-- Forget what some sources were corrected to, unless they were corrected again meanwhile.
-- KEYS: counters, memory, its sources by age
-- ARGV: for each source its digest and the correction that goes
local bytes = 0
for at = 1, #ARGV, 2 do
  if redis.call('HGET', KEYS[2], ARGV[at]) == ARGV[at + 1] then
    bytes = bytes + forget_told(KEYS[2], KEYS[3], ARGV[at])
  end
end
bump(KEYS[1], 'bytes:memory', -bytes)
return redis.status_reply('OK')

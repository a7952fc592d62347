-- Forget what some sources were corrected to, unless they were corrected again meanwhile.
-- KEYS: counters, memory, its sources by age
-- ARGV: for each source its digest and the correction that goes
bump(KEYS[1], 'bytes:memory', -forget_equal(KEYS[2], KEYS[3], 1, #ARGV))
return redis.status_reply('OK')

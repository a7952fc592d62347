-- Register a task or change its settings; a smaller reservoir is shrunk at once.
-- KEYS: tasks, counters, records, reservoir
-- ARGV: task, settings, reservoir_bytes, largest share
redis.call('HSET', KEYS[1], ARGV[1], ARGV[2])
shrink_reservoir(KEYS[2], KEYS[3], KEYS[4], tonumber(ARGV[3]), tonumber(ARGV[4]))
return redis.status_reply('OK')

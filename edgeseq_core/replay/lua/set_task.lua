-- Register a task or change its settings; a smaller reservoir is shrunk, a memory no more wanted is
-- emptied at once.
-- KEYS: tasks, counters, records, reservoir, memory, its sources by age, notes
-- ARGV: task, settings, reservoir_bytes, largest share, '1' for a memory
redis.call('HSET', KEYS[1], ARGV[1], ARGV[2])
shrink_reservoir(KEYS[2], KEYS[3], KEYS[7], KEYS[4], tonumber(ARGV[3]), tonumber(ARGV[4]))
if ARGV[5] ~= '1' then
  redis.call('DEL', KEYS[5], KEYS[6])
  redis.call('HDEL', KEYS[2], 'bytes:memory')
end
return redis.status_reply('OK')

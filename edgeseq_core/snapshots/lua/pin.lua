-- Hold the champion against the gate's promotions, or let the gate decide again.
-- KEYS: state, journal, champions
-- ARGV: pinned (1 or 0), now_ms, journal line, task
-- The first write removes: it works on a full store too.
redis.call('HDEL', KEYS[1], 'pinned_ms')
if ARGV[1] == '1' then
  redis.call('HSET', KEYS[1], 'pinned_ms', ARGV[2])
  local champion = redis.call('HGET', KEYS[3], ARGV[4])
  if champion then redis.call('HSET', KEYS[1], 'chosen', champion) end
end
redis.call('RPUSH', KEYS[2], ARGV[3])
return redis.status_reply('OK')

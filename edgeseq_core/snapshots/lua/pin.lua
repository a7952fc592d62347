-- Hold the champion against the gate's promotions, or let the gate decide again.
-- KEYS: state, journal
-- ARGV: pinned (1 or 0), now_ms, journal line
-- The first write removes: it works on a full store too.
redis.call('HDEL', KEYS[1], 'pinned_ms')
if ARGV[1] == '1' then
  redis.call('HSET', KEYS[1], 'pinned_ms', ARGV[2])
end
redis.call('RPUSH', KEYS[2], ARGV[3])
return redis.status_reply('OK')

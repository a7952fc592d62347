-- Remember that a pair with a readable id went to the dead-letter topic.
-- KEYS: outcomes, seen
-- ARGV: name, reason, now_ms, forget before_ms, ids to keep, ids to forget at once
local REPEATED = {waiting = 1, held_out = 1, trained = 1, forgotten = 1, quarantined = 1}
local known = redis.call('HGET', KEYS[1], ARGV[1])
if not (known and REPEATED[outcome_of(known)]) then
  redis.call('HSET', KEYS[1], ARGV[1], 'dead_lettered|0|' .. ARGV[2] .. '|')
  redis.call('ZADD', KEYS[2], ARGV[3], ARGV[1])
end
forget_ids(KEYS[1], KEYS[2], ARGV[4], tonumber(ARGV[5]), tonumber(ARGV[6]))
return redis.status_reply('OK')

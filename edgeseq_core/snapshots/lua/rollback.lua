-- Serve an earlier champion, pin the task, and fork the learner to that snapshot's checkpoint.
-- KEYS: champions, state, checkpoints, kept, journal, payloads, promotions, held, promoted, manifests, forks
-- ARGV: task, snapshot id, expected champion, now_ms, journal line, promotions to keep
local keys = {champions = KEYS[1], state = KEYS[2], checkpoints = KEYS[3], kept = KEYS[4],
  payloads = KEYS[6], promotions = KEYS[7], held = KEYS[8], promoted = KEYS[9], manifests = KEYS[10]}
local id = ARGV[2]
local refusal = fence_champion(keys.champions, ARGV[1], ARGV[3]) or fence_base(keys, ARGV[1], id)
if refusal then return refusal end
local function missing(why)
  return redis.error_reply('SNAPSHOT ' .. why .. '; choose one that `edgeseq snapshots --kept` lists')
end
if redis.call('HEXISTS', keys.promoted, id) == 0 then
  return missing('snapshot ' .. id .. ' never served')
end
local step = redis.call('HGET', keys.kept, id)
if not step then
  return missing('the bytes of snapshot ' .. id .. ' are not kept')
end
if step ~= '0' and redis.call('HEXISTS', keys.checkpoints, step) == 0 then
  return missing('the checkpoint of snapshot ' .. id .. ' is not kept')
end
local abandoned = redis.call('HGET', keys.state, 'step') or '0'
-- The first write removes: a person's way back works on a full store too.
redis.call('HDEL', keys.state, 'chosen')
redis.call('HSET', keys.state, 'chosen', id, 'pinned_ms', ARGV[4], 'step', step)
fork(KEYS[11], keys, step)
redis.call('RPUSH', KEYS[5], ARGV[5])
drop_checkpoint(keys.checkpoints, keys.kept, step, abandoned)
serve(ARGV[1], id, ARGV[4], tonumber(ARGV[6]), keys)
return redis.status_reply('OK')

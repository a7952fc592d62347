-- The learner of a task begins anew, from nothing or from a kept snapshot; the champion's bytes stay.
-- KEYS: champions, state, checkpoints, kept, journal, payloads, promotions, held, promoted, manifests,
--       forks, relearning
-- ARGV: task, branch, expected champion ('' for none), now_ms, journal line, promotions to keep,
--       base ('' as before), snapshot id ('' for none)
local keys = {champions = KEYS[1], state = KEYS[2], checkpoints = KEYS[3], kept = KEYS[4],
  payloads = KEYS[6], promotions = KEYS[7], held = KEYS[8], promoted = KEYS[9], manifests = KEYS[10]}
local task, champion, base, id = ARGV[1], ARGV[3], ARGV[7], ARGV[8]
local refusal = fence_champion(keys.champions, task, champion)
if refusal then return refusal end
local branch = redis.call('HGET', keys.state, 'branch') or '0'
if branch ~= ARGV[2] then
  return refuse('the branch of task ' .. task .. ' is ' .. branch .. ', not ' .. ARGV[2])
end
local step = id == '' and '0' or redis.call('HGET', keys.kept, id)
if not step then
  return redis.error_reply('SNAPSHOT the bytes of snapshot ' .. id .. ' are not kept; choose one that `edgeseq snapshots --kept` lists')
end
local abandoned = redis.call('HGET', keys.state, 'step') or '0'
-- The first write: one that Redis refuses when memory is full, so that nothing is half-written.
redis.call('HSET', keys.state, 'step', step)
if champion ~= '' then
  local own = cjson.decode(redis.call('HGET', keys.manifests, champion)).manifest.base
  redis.call('HSET', keys.state, 'champion:' .. own, champion)
end
if base ~= '' then
  redis.call('HSET', keys.state, 'base', base)
  redis.call('HDEL', keys.state, 'pinned_ms')
end
-- What begins from nothing learns the same pairs again: they are its past.
fork(KEYS[11], keys, id == '' and abandoned or step)
redis.call('RPUSH', KEYS[5], ARGV[5])
drop_checkpoint(keys.checkpoints, keys.kept, step, abandoned)
redis.call('HDEL', KEYS[12], task)
if id == '' and (redis.call('HGET', keys.state, 'last_step') or '0') ~= '0' then
  redis.call('HSET', KEYS[12], task, branch + 1)
elseif id ~= '' then
  serve(task, id, ARGV[4], tonumber(ARGV[6]), keys)
end
return redis.status_reply('OK')

-- Delete every calibration of a task, and let its learner begin anew on what the reservoir holds.
-- KEYS: champions, state, checkpoints, kept, journal, payloads, promotions, held, promoted, manifests,
--       forks, relearning, reservoir
-- ARGV: task, branch, expected champion ('' for none), journal line before and after the deleted ids
local keys = {champions = KEYS[1], state = KEYS[2], checkpoints = KEYS[3], kept = KEYS[4],
  payloads = KEYS[6], promotions = KEYS[7], held = KEYS[8], promoted = KEYS[9], manifests = KEYS[10]}
local task, champion = ARGV[1], ARGV[3]
local refusal = fence_champion(keys.champions, task, champion)
if refusal then return refusal end
local branch = redis.call('HGET', keys.state, 'branch') or '0'
if branch ~= ARGV[2] then
  return refuse('the branch of task ' .. task .. ' is ' .. branch .. ', not ' .. ARGV[2])
end
local abandoned = redis.call('HGET', keys.state, 'step') or '0'
-- The first writes remove: who wants to be forgotten need not wait for memory.
redis.call('DEL', keys.checkpoints)
local named, fields = {}, redis.call('HKEYS', keys.state)
for _, field in ipairs(fields) do
  if string.sub(field, 1, 9) == 'champion:' then redis.call('HDEL', keys.state, field) end
end
redis.call('HDEL', keys.state, 'pinned_ms', 'chosen', 'reference', 'tainted')
local ids = redis.call('HKEYS', keys.kept)
table.sort(ids)
for at, id in ipairs(ids) do
  named[at] = '"' .. id .. '"'
  if id ~= champion then
    for _, order in ipairs({keys.promotions, keys.held}) do redis.call('ZREM', order, id) end
    redis.call('HDEL', keys.payloads, id)
    redis.call('HDEL', keys.kept, id)
  end
end
redis.call('HSET', keys.state, 'step', 0)
fork(KEYS[11], keys, abandoned)
redis.call('HDEL', KEYS[12], task)
if champion ~= '' then redis.call('HSET', keys.state, 'purging', champion) end
if redis.call('ZCARD', KEYS[13]) > 0 then
  redis.call('HSET', KEYS[12], task, branch + 1)
elseif champion ~= '' then
  end_purge(task, keys, champion)
end
redis.call('RPUSH', KEYS[5], ARGV[4] .. table.concat(named, ',') .. ARGV[5])
return redis.status_reply('OK')

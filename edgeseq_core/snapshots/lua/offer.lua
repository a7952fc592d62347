-- Store a candidate and the gate's decision; promote it if the gate said so and nobody pinned the task.
-- KEYS: epoch, then champions, state, checkpoints, kept, journal, payloads, manifests, history,
--       promotions, held, promoted, relearning
-- ARGV: task, epoch, branch, expected champion, snapshot id, step, payload, record, journal line,
--       serve (1) or hold (0), now_ms, promotions to keep, held candidates to keep, reference ('' for none)
-- Returns 1 when it serves now.
local keys = {champions = KEYS[2], state = KEYS[3], checkpoints = KEYS[4], kept = KEYS[5],
  payloads = KEYS[7], promotions = KEYS[10], held = KEYS[11], promoted = KEYS[12]}
local task, id = ARGV[1], ARGV[5]
local refusal = fence(KEYS[1], 'learner', ARGV[2]) or fence_champion(keys.champions, task, ARGV[4])
if refusal then return refusal end
local branch = redis.call('HGET', keys.state, 'branch') or '0'
if branch ~= ARGV[3] then
  return refuse('the branch of task ' .. task .. ' is ' .. branch .. ', not ' .. ARGV[3])
end
-- The first write: one that Redis refuses when memory is full, so that nothing is half-written.
redis.call('HSET', keys.payloads, id, ARGV[7])
redis.call('HSET', keys.kept, id, ARGV[6])
redis.call('HSET', keys.state, 'reference', ARGV[14])
redis.call('HDEL', KEYS[13], task)
if redis.call('HSETNX', KEYS[8], id, ARGV[8]) == 1 then
  redis.call('RPUSH', KEYS[9], id)
end
redis.call('RPUSH', KEYS[6], ARGV[9])
local serves = ARGV[10] == '1' and redis.call('HEXISTS', keys.state, 'pinned_ms') == 0
if serves then
  serve(task, id, ARGV[11], tonumber(ARGV[12]), keys)
elseif not redis.call('ZSCORE', keys.promotions, id) then
  redis.call('ZADD', keys.held, next_number(keys), id)
  drop_held(task, tonumber(ARGV[13]), keys)
end
local purging = redis.call('HGET', keys.state, 'purging')
if purging then end_purge(task, keys, purging) end
return serves and 1 or 0

-- Serve a stored candidate by a person's decision.
-- KEYS: champions, state, checkpoints, kept, journal, payloads, promotions, held, promoted,
--       manifests
-- ARGV: task, snapshot id, expected champion, now_ms, journal line, promotions to keep
local keys = {champions = KEYS[1], state = KEYS[2], checkpoints = KEYS[3], kept = KEYS[4],
  payloads = KEYS[6], promotions = KEYS[7], held = KEYS[8], promoted = KEYS[9], manifests = KEYS[10]}
local refusal = fence_champion(keys.champions, ARGV[1], ARGV[3])
  or fence_base(keys, ARGV[1], ARGV[2])
if refusal then return refusal end
if redis.call('HEXISTS', keys.kept, ARGV[2]) == 0 then
  return redis.error_reply('SNAPSHOT the bytes of snapshot ' .. ARGV[2] .. ' are not kept; choose one that `edgeseq snapshots --kept` lists')
end
redis.call('RPUSH', KEYS[5], ARGV[5])
redis.call('HSET', keys.state, 'chosen', ARGV[2])
serve(ARGV[1], ARGV[2], ARGV[4], tonumber(ARGV[6]), keys)
return redis.status_reply('OK')

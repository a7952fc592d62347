-- The learner's resumable state: step, branch, last step, checkpoint.  Writes nothing.
-- KEYS: state, checkpoints
local state = redis.call('HMGET', KEYS[1], 'step', 'branch', 'last_step')
local step = state[1] or '0'
return {step, state[2] or '0', state[3] or '0', redis.call('HGET', KEYS[2], step)}

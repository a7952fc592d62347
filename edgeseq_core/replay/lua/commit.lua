-- One learner step: checkpoint, journal and moves, applied as a whole or not at all.
-- KEYS: epoch, outcomes, waiting, partition counters, tasks, state, checkpoints, kept, journal,
--       counters, records, then the parts corrections, bulk, recent, probe, reservoir, and notes
-- ARGV: task, epoch, branch, expected step, step, checkpoint, journal line, default settings, largest
--       share; then for each move: key, number of origin, number of destination, priority, note ('' for none)
local PARTS = {'corrections', 'bulk', 'recent', 'probe', 'reservoir'}
local RECENT, PROBE, RESERVOIR = 3, 4, 5
local STATES = {[RECENT] = 'held_out', [PROBE] = 'held_out', [RESERVOIR] = 'trained'}
local outcomes, waiting, partition = KEYS[2], KEYS[3], KEYS[4]
local state, checkpoints, kept, journal = KEYS[6], KEYS[7], KEYS[8], KEYS[9]
local counters, records, notes = KEYS[10], KEYS[11], KEYS[17]
local task, expected, step, share = ARGV[1], ARGV[4], ARGV[5], tonumber(ARGV[9])

local refusal = fence(KEYS[1], 'learner', ARGV[2])
if refusal then return refusal end
local now = redis.call('HMGET', state, 'branch', 'step', 'last_step', 'notes')
for i, check in ipairs({{'branch', ARGV[3]}, {'stored step', expected}}) do
  local found = now[i] or '0'
  if found ~= check[2] then
    return refuse('the ' .. check[1] .. ' of task ' .. task .. ' is ' .. found .. ', not ' .. check[2])
  end
end
if tonumber(step) <= tonumber(now[3] or 0) then
  return refuse('step ' .. step .. ' of task ' .. task .. ' does not follow step ' .. (now[3] or '0'))
end
local moves = {}
for at = 10, #ARGV, 5 do
  local move = {key = ARGV[at], origin = tonumber(ARGV[at + 1]),
    destination = tonumber(ARGV[at + 2]), priority = ARGV[at + 3], note = ARGV[at + 4]}
  if not redis.call('ZSCORE', KEYS[11 + move.origin], move.key) then
    return refuse('pair ' .. move.key .. ' is not in ' .. PARTS[move.origin])
  end
  moves[#moves + 1] = move
end

-- The first write: one that Redis refuses when memory is full, so that nothing is half-written.
redis.call('HSET', checkpoints, step, ARGV[6])
redis.call('HSET', state, 'step', step, 'last_step', step)
drop_checkpoint(checkpoints, kept, step, expected)
redis.call('RPUSH', journal, ARGV[7])
if now[4] and now[4] ~= ARGV[3] then drop_notes(counters, notes) end

local stored = redis.call('HMGET', counters, 'threshold', 'largest_bytes', 'sequence')
local threshold, largest = tonumber(stored[1] or 1), tonumber(stored[2] or 0)
local sequence = tonumber(stored[3] or 0)
local budget = cjson.decode(redis.call('HGET', KEYS[5], task) or ARGV[8]).reservoir_bytes
local fits = math.floor(budget / share)
local bytes, learnt = {0, 0, 0, 0, 0}, 0
for _, move in ipairs(moves) do
  local record = redis.call('HGET', records, move.key)
  local size = #record - NAME_BYTES
  local keep = true
  redis.call('ZREM', KEYS[11 + move.origin], move.key)
  bytes[move.origin] = bytes[move.origin] - size
  if move.destination == RESERVOIR then
    learnt, size = learnt + 1, size + #move.note
    if size <= fits then largest = math.max(largest, size) end
    keep = size <= fits and tonumber(move.priority) < threshold
  elseif move.destination == RECENT then
    sequence = sequence + 1
    move.priority = sequence
  end
  if keep then
    redis.call('ZADD', KEYS[11 + move.destination], move.priority, move.key)
    bytes[move.destination] = bytes[move.destination] + size
    if move.note ~= '' then
      redis.call('HSET', notes, move.key, move.note)
      redis.call('HSET', state, 'notes', ARGV[3])
    end
  else
    redis.call('HDEL', records, move.key)
  end
  settle(outcomes, string.sub(record, 1, NAME_BYTES), move.key, STATES[move.destination],
    move.destination == RESERVOIR and step or '0')
end
for part, delta in ipairs(bytes) do
  bump(counters, 'bytes:' .. PARTS[part], delta)
end
bump(counters, 'learnt', learnt)
redis.call('HSET', counters, 'largest_bytes', largest, 'sequence', sequence)
shrink_reservoir(counters, records, notes, KEYS[16], budget, share)
bump(partition, 'fresh_bytes', bytes[1] + bytes[2])
note_waiting(waiting, task, KEYS[12], KEYS[13])
return redis.status_reply('OK')

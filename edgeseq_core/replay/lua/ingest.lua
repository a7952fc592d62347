-- Place a batch of one topic's pairs and move its position, in one step.
-- KEYS: epoch, positions, tasks, waiting, outcomes, seen, quarantine, counters;
--       then for each task: corrections, bulk, records, counters, memory, its sources by age
-- ARGV: epoch, topic, expected position ('' for none), position, now_ms, forget before_ms, ids to keep,
--       ids to forget at once, auto_register, max_tasks, quarantine_bytes, settings of a new task,
--       memory_bytes, number of tasks, the tasks; then for each pair: task number, name, key, part
--       (1 corrections, 2 bulk), reason to quarantine or '', record, what the memory may keep or ''
-- Returns one outcome a pair.
local PARTS = {'corrections', 'bulk'}
local REPEATED = {waiting = 1, held_out = 1, trained = 1, forgotten = 1, quarantined = 1}
local positions, settings, waiting = KEYS[2], KEYS[3], KEYS[4]
local outcomes, seen, quarantine, counters = KEYS[5], KEYS[6], KEYS[7], KEYS[8]
local topic, now_ms = ARGV[2], ARGV[5]

local refusal = fence(KEYS[1], 'consumer', ARGV[1])
if refusal then return refusal end
local found = redis.call('HGET', positions, topic) or ''
if found ~= ARGV[3] then
  return refuse('the position of ' .. topic .. " is '" .. found .. "', not '" .. ARGV[3]
    .. "': read it again")
end
-- The first write: one that Redis refuses when memory is full, so that nothing is half-written.
redis.call('HSET', positions, topic, ARGV[4])

local auto_register, max_tasks = ARGV[9] == '1', tonumber(ARGV[10])
local quarantine_limit, memory_limit = tonumber(ARGV[11]), tonumber(ARGV[13])
local tasks, registered = {}, redis.call('HLEN', settings)
for n = 1, tonumber(ARGV[14]) do
  local at = 8 + 6 * (n - 1)
  local known = redis.call('HGET', settings, ARGV[14 + n])
  local set = cjson.decode(known or ARGV[12])
  tasks[n] = {
    name = ARGV[14 + n], known = known, parts = {KEYS[at + 1], KEYS[at + 2]},
    records = KEYS[at + 3], counters = KEYS[at + 4], bytes = {0, 0}, added = 0, shed = 0,
    quota = set.fresh_quota, has_memory = set.memory, memory = KEYS[at + 5], ages = KEYS[at + 6],
    waiting = redis.call('ZCARD', KEYS[at + 1]) + redis.call('ZCARD', KEYS[at + 2]),
    sequence = tonumber(redis.call('HGET', KEYS[at + 4], 'sequence') or 0),
  }
end

local function remember(name, outcome)
  redis.call('HSET', outcomes, name, outcome)
  redis.call('ZADD', seen, now_ms, name)
end

local function hold(name, reason, data)
  local more = #data - redis.call('HSTRLEN', quarantine, name)
  if tonumber(redis.call('HGET', counters, 'quarantine_bytes') or 0) + more > quarantine_limit then
    return 'quarantine_full'
  end
  redis.call('HSET', quarantine, name, data)
  bump(counters, 'quarantine_bytes', more)
  remember(name, 'quarantined|0|' .. reason .. '|')
  return 'quarantined'
end

-- Keep a correction as its source's latest; the oldest make room.
local function keep_told(task, told)
  local source, correction = string.sub(told, 1, SOURCE_BYTES), string.sub(told, SOURCE_BYTES + 1)
  local bytes = -forget_told(task.memory, task.ages, source)
  redis.call('HSET', task.memory, source, correction)
  redis.call('ZADD', task.ages, task.sequence + task.added, source)
  bytes = bytes + SOURCE_BYTES + #correction
  local held = tonumber(redis.call('HGET', task.counters, 'bytes:memory') or 0)
  while held + bytes > memory_limit do
    bytes = bytes - forget_told(task.memory, task.ages, redis.call('ZRANGE', task.ages, 0, 0)[1])
  end
  bump(task.counters, 'bytes:memory', bytes)
end

local function place(task, name, key, part, reason, data, told)
  local known = redis.call('HGET', outcomes, name)
  if known and REPEATED[outcome_of(known)] then return 'duplicate' end
  if not task.known and not (auto_register and registered < max_tasks) then return 'unknown_task' end
  if reason ~= '' then return hold(name, reason, data) end
  if not task.known then
    task.known, registered = true, registered + 1
    redis.call('HSET', settings, task.name, ARGV[12])
  end
  if task.quota > 0 and task.waiting + task.added >= task.quota then
    task.shed = task.shed + 1
    remember(name, 'shed|0||')
    return 'shed'
  end
  task.added = task.added + 1
  redis.call('ZADD', task.parts[part], task.sequence + task.added, key)
  redis.call('HSET', task.records, key, name .. data)
  task.bytes[part] = task.bytes[part] + #data
  remember(name, 'waiting|0||' .. key)
  if task.has_memory and told ~= '' then keep_told(task, told) end
  return 'accepted'
end

local results = {}
for at = 15 + #tasks, #ARGV, 7 do
  results[#results + 1] = place(tasks[tonumber(ARGV[at])], ARGV[at + 1], ARGV[at + 2],
    tonumber(ARGV[at + 3]), ARGV[at + 4], ARGV[at + 5], ARGV[at + 6])
end

for _, task in ipairs(tasks) do
  if task.added > 0 then
    bump(task.counters, 'sequence', task.added)
    for part, bytes in ipairs(task.bytes) do
      bump(task.counters, 'bytes:' .. PARTS[part], bytes)
    end
    bump(counters, 'fresh_bytes', task.bytes[1] + task.bytes[2])
    note_waiting(waiting, task.name, task.parts[1], task.parts[2])
  end
  bump(task.counters, 'shed', task.shed)
end
forget_ids(outcomes, seen, ARGV[6], tonumber(ARGV[7]), tonumber(ARGV[8]))
return results

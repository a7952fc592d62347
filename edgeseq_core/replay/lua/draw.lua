-- Read a batch: heads of the fresh parts, and reservoir pairs by rank.  Writes nothing.
-- KEYS: records, corrections, bulk, reservoir, notes, state
-- ARGV: corrections, bulk, then one u in [0, 1) for each replayed pair
-- Returns three flat lists key, record, key, record ..., and the notes of the replayed pairs, if they are of
-- this branch.
local function head(part, count)
  local out = {}
  if count > 0 then
    append_records(out, KEYS[1], redis.call('ZRANGE', part, 0, count - 1))
  end
  return out
end

local size, ranked, replay = redis.call('ZCARD', KEYS[4]), {}, {}
if size > 0 then
  for i = 3, #ARGV do
    local rank = math.min(math.floor(tonumber(ARGV[i]) * size), size - 1)
    ranked[#ranked + 1] = redis.call('ZRANGE', KEYS[4], rank, rank)[1]
  end
end
append_records(replay, KEYS[1], ranked)
local noted, now = {}, redis.call('HMGET', KEYS[6], 'branch', 'notes')
if now[2] and now[2] == (now[1] or '0') then
  in_chunks(ranked, function(...)
    for _, note in ipairs(redis.call('HMGET', KEYS[5], ...)) do noted[#noted + 1] = note or '' end
  end)
end
return {head(KEYS[2], tonumber(ARGV[1])), head(KEYS[3], tonumber(ARGV[2])), replay, noted}

-- All pairs of a part in its order, as a flat list key, record ...  Writes nothing.
-- KEYS: records, part
local out = {}
append_records(out, KEYS[1], redis.call('ZRANGE', KEYS[2], 0, -1))
return out

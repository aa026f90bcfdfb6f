-- due_lanes: the lanes in which a try is due, and those whose try did not end within its lease. Changes nothing.
-- KEYS  1 lanes  2 busy lanes
-- ARGV  1 how many at most
-- OK    {"OK", lane id, ...}        ERR  none
-- include common
local now, most = text(now_ms()), ARGV[1]

local found = {'OK'}
for _, lanes in ipairs({KEYS[2], KEYS[1]}) do
  for _, lane_id in ipairs(redis.call('ZRANGEBYSCORE', lanes, '-inf', now, 'LIMIT', 0, most)) do
    found[#found + 1] = lane_id
  end
end
return found

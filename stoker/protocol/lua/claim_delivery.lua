-- claim_delivery: take the first delivery that is due in a lane. After a lost reply the lane waits for the lease's end.
-- KEYS  1 lane  2 lanes  3 busy lanes
-- ARGV  1 lane id  2 lease (ms)
-- OK    {"OK", delivery id, lease's end (ms)}, or {"OK"} = nothing is due        ERR  none
-- include common, lanes
local lane_id, lease = ARGV[1], tonumber(ARGV[2])

local now = now_ms()
local held = redis.call('ZSCORE', KEYS[3], lane_id)
if held and tonumber(held) > now then
  return {'OK'}
end
redis.call('ZREM', KEYS[3], lane_id)
local first = redis.call('ZRANGEBYSCORE', KEYS[1], '-inf', text(now), 'LIMIT', 0, 1)
if not first[1] then
  line_up(KEYS[1], KEYS[2], KEYS[3], lane_id)
  return {'OK'}
end
local ends = text(now + lease)
redis.call('ZREM', KEYS[2], lane_id)
redis.call('ZADD', KEYS[3], ends, lane_id)
return {'OK', first[1], ends}

-- open_delivery: an ending that a receiver is to be told joins its lane. Idempotent by delivery.
-- KEYS  1 delivery  2 owner's pending deliveries  3 lane  4 lanes  5 busy lanes
-- ARGV  1 delivery id  2 lane id  3 delivery (JSON)
-- OK    {"OK", opened (1), or 0 = it is known}        ERR  none
-- include common, lanes
local id, lane_id, about = ARGV[1], ARGV[2], ARGV[3]

if redis.call('EXISTS', KEYS[1]) == 1 then
  return {'OK', 0}
end
local now = text(now_ms())
redis.call('HSET', KEYS[1], 'about', about, 'state', 'pending', 'created', now, 'changed', now,
  'due', now, 'round', now, 'tries', '0', 'total', '0')
redis.call('ZADD', KEYS[2], now, id)
redis.call('ZADD', KEYS[3], now, id)
line_up(KEYS[3], KEYS[4], KEYS[5], lane_id)
return {'OK', 1}

-- replay_delivery: a delivery is tried again, now, and as often as a new one. Idempotent.
-- KEYS  1 delivery  2 tries  3 owner's pending deliveries  4 owner's delivered ones  5 owner's dead ones  6 lane  7 lanes  8 busy lanes
-- ARGV  1 delivery id  2 lane id
-- OK    {"OK"}        ERR  DELIVERY_UNKNOWN
-- include common, lanes
local id, lane_id = ARGV[1], ARGV[2]

if redis.call('EXISTS', KEYS[1]) == 0 then
  return {'DELIVERY_UNKNOWN'}
end
local now = text(now_ms())
if redis.call('HGET', KEYS[1], 'state') ~= 'pending' then
  redis.call('HSET', KEYS[1], 'state', 'pending', 'changed', now)
  redis.call('ZADD', KEYS[3], now, id)
end
redis.call('HSET', KEYS[1], 'due', now, 'round', now, 'tries', '0')
redis.call('PERSIST', KEYS[1])
redis.call('PERSIST', KEYS[2])
redis.call('ZREM', KEYS[4], id)
redis.call('ZREM', KEYS[5], id)
redis.call('ZADD', KEYS[6], now, id)
line_up(KEYS[6], KEYS[7], KEYS[8], lane_id)
return {'OK'}

-- end_try: note what came of a try, and what becomes of its delivery and lane. Nothing for who holds the lane no more.
-- KEYS  1 delivery  2 tries  3 owner's pending deliveries  4 owner's deliveries of the state  5 lane  6 lanes  7 busy lanes
-- ARGV  1 delivery id  2 lane id  3 lease's end (ms)  4 round of the try (ms)  5 state  6 pause if pending, else kept (ms)  7 try (JSON)  8 rest of the lane (ms)
-- OK    {"OK", replayed meanwhile, and due still (1), or 0, id of a delivery that is forgotten, ...}        ERR  none
-- include common, lanes
local id, lane_id, lease, round, state = ARGV[1], ARGV[2], ARGV[3], ARGV[4], ARGV[5]
local length, try, rest = tonumber(ARGV[6]), ARGV[7], tonumber(ARGV[8])
-- Ended ones of one owner and state, some 1 KB each, and tries of one, of 0.5 KB at most; the oldest go first.
local LISTED, TRIES = 5000, 50

local held = redis.call('ZSCORE', KEYS[7], lane_id)
if not held or text(tonumber(held)) ~= lease then
  return {'OK', 0}
end
local answer = {'OK', 0}
local now = now_ms()
if rest > 0 then
  redis.call('ZADD', KEYS[7], text(now + rest), lane_id)
else
  redis.call('ZREM', KEYS[7], lane_id)
end
local stored = redis.call('HMGET', KEYS[1], 'state', 'round')
if stored[1] ~= 'pending' then
  redis.call('ZREM', KEYS[5], id)
else
  redis.call('RPUSH', KEYS[2], try)
  redis.call('LTRIM', KEYS[2], -TRIES, -1)
  redis.call('HINCRBY', KEYS[1], 'total', 1)
  if stored[2] ~= round and state ~= 'delivered' then
    answer[2] = 1 -- what becomes of it was decided from the round before; in this one it has had no try
  elseif state == 'pending' then
    redis.call('HINCRBY', KEYS[1], 'tries', 1)
    redis.call('HSET', KEYS[1], 'due', text(now + length))
    redis.call('ZADD', KEYS[5], text(now + length), id)
  else
    redis.call('HINCRBY', KEYS[1], 'tries', 1)
    redis.call('HSET', KEYS[1], 'state', state, 'changed', text(now), 'due', '')
    redis.call('PEXPIRE', KEYS[1], length)
    redis.call('PEXPIRE', KEYS[2], length)
    redis.call('ZREM', KEYS[5], id)
    redis.call('ZREM', KEYS[3], id)
    redis.call('ZADD', KEYS[4], text(now), id)
    redis.call('ZREMRANGEBYSCORE', KEYS[4], '-inf', text(now - length))
    for _, old in ipairs(redis.call('ZRANGE', KEYS[4], 0, -LISTED - 1)) do
      redis.call('ZREM', KEYS[4], old)
      answer[#answer + 1] = old
    end
  end
end
line_up(KEYS[5], KEYS[6], KEYS[7], lane_id)
return answer

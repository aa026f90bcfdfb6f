-- end_try: note what came of a try, and what becomes of its delivery and lane. Nothing for who holds the lane no more.
-- KEYS  1 delivery  2 tries  3 owner's pending deliveries  4 owner's deliveries of the state  5 lane  6 lanes  7 busy lanes
-- ARGV  1 delivery id  2 lane id  3 lease's end (ms)  4 state  5 pause (ms)  6 try (JSON)  7 rest of the lane (ms)  8 kept (ms)
-- OK    {"OK", id of a delivery that is forgotten, ...}        ERR  none
-- include common, lanes
local id, lane_id, lease, state = ARGV[1], ARGV[2], ARGV[3], ARGV[4]
local pause, try, rest, kept = tonumber(ARGV[5]), ARGV[6], tonumber(ARGV[7]), tonumber(ARGV[8])
-- Ended ones of one owner and state, some 1 KB each, and tries of one, of 0.5 KB at most; the oldest go first.
local LISTED, TRIES = 5000, 50

local held = redis.call('ZSCORE', KEYS[7], lane_id)
if not held or text(tonumber(held)) ~= lease then
  return {'OK'}
end
local forgotten = {'OK'}
local now = now_ms()
if rest > 0 then
  redis.call('ZADD', KEYS[7], text(now + rest), lane_id)
else
  redis.call('ZREM', KEYS[7], lane_id)
end
if redis.call('HGET', KEYS[1], 'state') ~= 'pending' then
  redis.call('ZREM', KEYS[5], id)
else
  redis.call('RPUSH', KEYS[2], try)
  redis.call('LTRIM', KEYS[2], -TRIES, -1)
  redis.call('HINCRBY', KEYS[1], 'tries', 1)
  redis.call('HINCRBY', KEYS[1], 'total', 1)
  if state == 'pending' then
    redis.call('HSET', KEYS[1], 'due', text(now + pause))
    redis.call('ZADD', KEYS[5], text(now + pause), id)
  else
    redis.call('HSET', KEYS[1], 'state', state, 'changed', text(now), 'due', '')
    redis.call('PEXPIRE', KEYS[1], kept)
    redis.call('PEXPIRE', KEYS[2], kept)
    redis.call('ZREM', KEYS[5], id)
    redis.call('ZREM', KEYS[3], id)
    redis.call('ZADD', KEYS[4], text(now), id)
    redis.call('ZREMRANGEBYSCORE', KEYS[4], '-inf', text(now - kept))
    for _, old in ipairs(redis.call('ZRANGE', KEYS[4], 0, -LISTED - 1)) do
      redis.call('ZREM', KEYS[4], old)
      forgotten[#forgotten + 1] = old
    end
  end
end
line_up(KEYS[5], KEYS[6], KEYS[7], lane_id)
return forgotten

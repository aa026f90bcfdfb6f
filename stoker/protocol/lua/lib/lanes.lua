-- lanes: deliveries wait in the lanes of their receiver, and a lane has one try at a time.

-- Have a lane looked at when its next delivery is due. A busy one is when its try has ended.
local function line_up(lane, lanes, busy, lane_id)
  local first = redis.call('ZRANGE', lane, 0, 0, 'WITHSCORES')
  if not first[1] then
    redis.call('ZREM', lanes, lane_id)
  elseif not redis.call('ZSCORE', busy, lane_id) then
    redis.call('ZADD', lanes, first[2], lane_id)
  end
end

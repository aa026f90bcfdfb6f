-- sessions: whether a session goes on, by the server's clock, and its idle time.

-- Returns '' while it is active, why it is over, or nil when there is none.
local function session_end(session, tasks)
  local have = redis.call('HMGET', session, 'end', 'expires')
  if not have[1] then
    return nil
  end
  if have[1] == '' and tonumber(have[2]) < now_ms() and redis.call('SCARD', tasks) == 0 then
    return 'expired'
  end
  return have[1]
end

-- Begin the idle time anew. While a task waits or runs it does not pass.
local function touch_session(session, tasks, index, session_id)
  local expires = text(now_ms() + tonumber(redis.call('HGET', session, 'idle_ms')))
  redis.call('HSET', session, 'expires', expires)
  redis.call('ZADD', index, redis.call('SCARD', tasks) > 0 and '+inf' or expires, session_id)
end

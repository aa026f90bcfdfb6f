-- end_session: close a session and wake the scheduler, which takes the worker back. One that is over stays as it is.
-- KEYS  1 session  2 session tasks  3 sessions  4 wake
-- ARGV  1 session id  2 why  3 keep (ms)
-- OK    {"OK"}        ERR  SESSION_UNKNOWN  SESSION_ACTIVE
-- include common, sessions
local session, tasks, session_id, why = KEYS[1], KEYS[2], ARGV[1], ARGV[2]

local over = session_end(session, tasks)
if not over then
  redis.call('ZREM', KEYS[3], session_id)
  return {'SESSION_UNKNOWN'}
end
if why == 'expired' and over == '' then
  return {'SESSION_ACTIVE'}
end
if redis.call('HGET', session, 'end') ~= '' then
  return {'OK'}
end
-- Whoever comes after the idle time finds an expired session, whatever he wants of it.
redis.call('HSET', session, 'end', over == '' and why or over, 'ended', text(now_ms()))
redis.call('ZREM', KEYS[3], session_id)
redis.call('PEXPIRE', session, ARGV[3])
redis.call('PEXPIRE', tasks, ARGV[3])
redis.call('XADD', KEYS[4], '*', 'k', 'session', 'session', session_id, 'reason', over == '' and why or over)
return {'OK'}

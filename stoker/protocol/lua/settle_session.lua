-- settle_session: a task of a session has ended; the idle time begins when it was the last. Idempotent.
-- KEYS  1 session  2 session tasks  3 sessions
-- ARGV  1 session id  2 task id
-- OK    {"OK"}        ERR  none
-- include common, sessions
if redis.call('SREM', KEYS[2], ARGV[2]) == 1 and redis.call('HGET', KEYS[1], 'end') == '' then
  touch_session(KEYS[1], KEYS[2], KEYS[3], ARGV[1])
end
return {'OK'}

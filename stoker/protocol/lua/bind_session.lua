-- bind_session: the scheduler has given a session's first task to a worker, which the session holds from now on.
-- KEYS  1 session  2 leader
-- ARGV  1 epoch  2 engine id  3 worker id
-- OK    {"OK"}        ERR  NOT_LEADER  SESSION_UNKNOWN
-- include leadership
if not leads(KEYS[2], ARGV[1]) then
  return {'NOT_LEADER'}
end
if redis.call('EXISTS', KEYS[1]) == 0 then
  return {'SESSION_UNKNOWN'}
end
redis.call('HSET', KEYS[1], 'engine', ARGV[2], 'worker', ARGV[3])
return {'OK'}

-- deregister: an engine leaves. What it still had is given back.
-- KEYS  1 leases  2 engine  3 engine tasks  4 engine inbox  5 wake
-- ARGV  1 engine id  2 session
-- OK    {"OK"}        ERR  ENGINE_UNKNOWN
-- include common, orphans
local engine_id = ARGV[1]

if redis.call('HGET', KEYS[2], 'session') ~= ARGV[2] then
  return {'ENGINE_UNKNOWN'}
end
redis.call('ZREM', KEYS[1], engine_id)
redis.call('HSET', KEYS[2], 'status', 'stopped', 'session', '', 'report', '{}')
redis.call('DEL', KEYS[4])
wake_orphans(KEYS[5], engine_id, KEYS[3], {}, 'the worker daemon stopped')
redis.call('XADD', KEYS[5], '*', 'k', 'engine', 'engine', engine_id)
return {'OK'}

-- report: what lives on an engine has changed.
-- KEYS  1 engine  2 wake
-- ARGV  1 engine id  2 session  3 report (JSON)  4 status
-- OK    {"OK"}        ERR  ENGINE_UNKNOWN
if redis.call('HGET', KEYS[1], 'session') ~= ARGV[2] then
  return {'ENGINE_UNKNOWN'}
end
local drain = redis.call('HGET', KEYS[1], 'drain')
local status = drain and drain ~= '' and 'draining' or ARGV[4]
redis.call('HSET', KEYS[1], 'report', ARGV[3], 'status', status)
redis.call('XADD', KEYS[2], '*', 'k', 'engine', 'engine', ARGV[1])
return {'OK'}

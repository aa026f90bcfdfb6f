-- enroll: invite a machine: a token that is good once, for some time. A former invitation is void.
-- KEYS  1 enrolment  2 enrolments  3 engine  4 audit
-- ARGV  1 name  2 token hash  3 good for (ms)  4 by whom  5 change (JSON or '')  6 changes kept
-- OK    {"OK", expires (ms)}        ERR  ALREADY_JOINED  NAME_TAKEN
-- include common, audit
local state = redis.call('HGET', KEYS[1], 'state')
if state == 'joined' then
  return {'ALREADY_JOINED'}
end
local status = redis.call('HGET', KEYS[3], 'status')
if not state and (status == 'running' or status == 'draining') then
  return {'NAME_TAKEN'}
end
local now = now_ms()
local expires = text(now + tonumber(ARGV[3]))
redis.call('DEL', KEYS[1])
redis.call('HSET', KEYS[1], 'state', 'invited', 'token', ARGV[2], 'expires', expires, 'by', ARGV[4],
  'created', text(now))
redis.call('SADD', KEYS[2], ARGV[1])
record_change(KEYS[4], ARGV[5], ARGV[6])
return {'OK', expires}

-- revoke: a machine's identity, or its invitation, is good for nothing any more. Idempotent.
-- KEYS  1 enrolment
-- ARGV  1 why
-- OK    {"OK"}        ERR  NOT_ENROLLED
-- include common
local state = redis.call('HGET', KEYS[1], 'state')
if not state then
  return {'NOT_ENROLLED'}
end
if state ~= 'revoked' then
  redis.call('HDEL', KEYS[1], 'token', 'expires', 'password', 'key')
  redis.call('HSET', KEYS[1], 'state', 'revoked', 'revoked', text(now_ms()), 'why', ARGV[1])
end
return {'OK'}

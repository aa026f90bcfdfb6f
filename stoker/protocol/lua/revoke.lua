-- revoke: a machine's identity, or its invitation, is good for nothing any more. Idempotent.
-- KEYS  1 enrolment  2 audit
-- ARGV  1 why  2 change (JSON or '')  3 changes kept
-- OK    {"OK"}        ERR  NOT_ENROLLED
-- include common, audit
local state = redis.call('HGET', KEYS[1], 'state')
if not state then
  return {'NOT_ENROLLED'}
end
if state ~= 'revoked' then
  redis.call('HDEL', KEYS[1], 'token', 'expires', 'password', 'key')
  redis.call('HSET', KEYS[1], 'state', 'revoked', 'revoked', text(now_ms()), 'why', ARGV[1])
  record_change(KEYS[2], ARGV[2], ARGV[3])
end
return {'OK'}

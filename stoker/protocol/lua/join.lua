-- join: exchange a token for an identity, once. Idempotent by the identity's password.
-- KEYS  1 enrolment  2 audit
-- ARGV  1 token hash  2 password hash  3 key hash  4 change (JSON or '')  5 changes kept
-- OK    {"OK"}        ERR  TOKEN_UNKNOWN  TOKEN_EXPIRED
-- include common, audit
local have = redis.call('HMGET', KEYS[1], 'state', 'token', 'expires', 'password')
if have[1] == 'joined' and have[4] == ARGV[2] then
  return {'OK'}
end
if have[1] ~= 'invited' or have[2] ~= ARGV[1] then
  return {'TOKEN_UNKNOWN'}
end
local now = now_ms()
if tonumber(have[3]) < now then
  return {'TOKEN_EXPIRED'}
end
redis.call('HDEL', KEYS[1], 'token', 'expires')
redis.call('HSET', KEYS[1], 'state', 'joined', 'joined', text(now), 'password', ARGV[2], 'key', ARGV[3])
record_change(KEYS[2], ARGV[4], ARGV[5])
return {'OK'}

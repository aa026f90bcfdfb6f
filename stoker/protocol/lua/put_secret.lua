-- put_secret: write a secret, if it is still as the writer read it. Idempotent by record.
-- KEYS  1 secrets of its owner  2 secret owners  3 audit
-- ARGV  1 name  2 revision that was read, '' = none  3 record (JSON)  4 owner id  5 most secrets of an owner  6 change (JSON or '')  7 changes kept
-- OK    {"OK"}        ERR  SECRET_CHANGED  SECRET_LIMIT
-- include audit
local name, read, record, owner, limit = ARGV[1], ARGV[2], ARGV[3], ARGV[4], tonumber(ARGV[5])

local known = redis.call('HGET', KEYS[1], name)
if known == record then
  return {'OK'}
end
local revision = known and cjson.decode(known).revision or ''
if revision ~= read then
  return {'SECRET_CHANGED', revision}
end
if not known and redis.call('HLEN', KEYS[1]) >= limit then
  return {'SECRET_LIMIT', ARGV[5]}
end
redis.call('SADD', KEYS[2], owner)
redis.call('HSET', KEYS[1], name, record)
record_change(KEYS[3], ARGV[6], ARGV[7])
return {'OK'}

-- put_secret: write a secret, if it is still as the writer read it; a new value retires the setups that were given the old one. Idempotent by record.
-- KEYS  1 secrets of its owner  2 secret owners  3 uses of the secret  4 retired setups  5 audit
-- ARGV  1 name  2 revision that was read, '' = none  3 record (JSON)  4 owner id  5 most secrets of an owner  6 most retired setups  7 change (JSON or '')  8 changes kept
-- OK    {"OK"}        ERR  SECRET_CHANGED  SECRET_LIMIT
-- include common, retiring, audit
local name, read, record, owner, limit = ARGV[1], ARGV[2], ARGV[3], ARGV[4], tonumber(ARGV[5])

local known = redis.call('HGET', KEYS[1], name)
if known == record then
  return {'OK'}
end
local before = known and cjson.decode(known) or {revision = ''}
if before.revision ~= read then
  return {'SECRET_CHANGED', before.revision}
end
if not known and redis.call('HLEN', KEYS[1]) >= limit then
  return {'SECRET_LIMIT', ARGV[5]}
end
redis.call('SADD', KEYS[2], owner)
redis.call('HSET', KEYS[1], name, record)
if before.version ~= cjson.decode(record).version then -- else its description or its encryption changed
  retire_uses(KEYS[3], KEYS[4], ARGV[6])
end
record_change(KEYS[5], ARGV[7], ARGV[8])
return {'OK'}

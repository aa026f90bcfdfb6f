-- put_signing_secret: write the secret that signs an owner's webhooks, if it is still as it was read. Idempotent by record.
-- KEYS  1 signing secrets  2 audit
-- ARGV  1 owner id  2 revision that was read, '' = none  3 record (JSON)  4 change (JSON or '')  5 changes kept
-- OK    {"OK"}        ERR  SECRET_CHANGED
-- include audit
local owner, read, record = ARGV[1], ARGV[2], ARGV[3]

local known = redis.call('HGET', KEYS[1], owner)
if known == record then
  return {'OK'}
end
local revision = known and cjson.decode(known).revision or ''
if revision ~= read then
  return {'SECRET_CHANGED', revision}
end
redis.call('HSET', KEYS[1], owner, record)
record_change(KEYS[2], ARGV[4], ARGV[5])
return {'OK'}

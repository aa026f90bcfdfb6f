-- put_first_key: store an API key where there is none. Idempotent by the key's text.
-- KEYS  1 API keys  2 API key ids  3 audit
-- ARGV  1 SHA-256 of the key's text  2 key id  3 key (JSON)  4 change (JSON or '')  5 changes kept
-- OK    {"OK", stored (0 or 1)}        ERR  none
-- include audit
local sha256, id, key = ARGV[1], ARGV[2], ARGV[3]

if redis.call('HEXISTS', KEYS[1], sha256) == 1 then
  return {'OK', 1}
end
if redis.call('HLEN', KEYS[1]) > 0 then
  return {'OK', 0}
end
redis.call('HSET', KEYS[1], sha256, key)
redis.call('HSET', KEYS[2], id, sha256)
record_change(KEYS[3], ARGV[4], ARGV[5])
return {'OK', 1}

-- load: have an engine load an instance that no task asks for. Idempotent by load id.
-- KEYS  1 leader  2 engine  3 engine inbox  4 leases  5 load
-- ARGV  1 load id  2 epoch  3 engine id  4 hash of the token  5 order (JSON)  6 grant (JSON)  7 kept (ms)
-- OK    {"OK"}        ERR  NOT_LEADER  ENGINE_GONE
-- include common, leadership
local epoch, engine_id, order, grant = ARGV[2], ARGV[3], ARGV[5], ARGV[6]

if not leads(KEYS[1], epoch) then
  return {'NOT_LEADER'}
end
if redis.call('EXISTS', KEYS[5]) == 1 then
  return {'OK'}
end
local lease = redis.call('ZSCORE', KEYS[4], engine_id)
local engine = redis.call('HMGET', KEYS[2], 'status', 'recalled')
if engine[1] ~= 'running' or engine[2] == '1' or not lease or tonumber(lease) < now_ms() then
  return {'ENGINE_GONE'}
end
-- For the gateway, which believes no engine: what it may be given for this order.
redis.call('HSET', KEYS[5], 'token_hash', ARGV[4], 'grant', grant)
redis.call('PEXPIRE', KEYS[5], ARGV[7])
redis.call('XADD', KEYS[3], '*', 'k', 'load', 'id', ARGV[1], 'order', order)
return {'OK'}

-- reap: declare an engine lost whose lease is over by the server's clock.
-- KEYS  1 leader  2 leases  3 engine  4 engine tasks  5 wake  6 engine inbox
-- ARGV  1 epoch  2 engine id
-- OK    {"OK"}        ERR  NOT_LEADER  LEASE_VALID
-- include common, leadership, orphans
local engine_id = ARGV[2]

if not leads(KEYS[1], ARGV[1]) then
  return {'NOT_LEADER'}
end
local lease = redis.call('ZSCORE', KEYS[2], engine_id)
if lease and tonumber(lease) >= now_ms() then
  return {'LEASE_VALID'}
end
redis.call('ZREM', KEYS[2], engine_id)
redis.call('HSET', KEYS[3], 'status', 'lost', 'session', '', 'report', '{}')
redis.call('DEL', KEYS[6])
wake_orphans(KEYS[5], engine_id, KEYS[4], {}, 'the worker machine fell silent')
redis.call('XADD', KEYS[5], '*', 'k', 'lost', 'engine', engine_id)
return {'OK'}

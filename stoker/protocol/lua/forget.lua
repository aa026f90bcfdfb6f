-- forget: an engine that left long ago and has nothing is known no more. It may register anew at any time. Idempotent.
-- KEYS  1 leader  2 leases  3 engine  4 engine tasks  5 engine inbox  6 engines  7 wake
-- ARGV  1 epoch  2 engine id  3 unseen for (ms)
-- OK    {"OK"}        ERR  NOT_LEADER  ENGINE_KEPT
-- include common, leadership
local engine_id, unseen_ms = ARGV[2], tonumber(ARGV[3])

if not leads(KEYS[1], ARGV[1]) then
  return {'NOT_LEADER'}
end
local have = redis.call('HMGET', KEYS[3], 'status', 'seen')
local away = not have[1] or have[1] == 'stopped' or have[1] == 'lost' or have[1] == 'refused'
local seen = tonumber(have[2] or 0) or 0  -- an engine may have put anything there
if not away or seen > now_ms() - unseen_ms or redis.call('ZSCORE', KEYS[2], engine_id)
    or redis.call('EXISTS', KEYS[4]) == 1 then
  return {'ENGINE_KEPT'}
end
if redis.call('ZREM', KEYS[6], engine_id) == 1 then
  redis.call('DEL', KEYS[3], KEYS[5])
  redis.call('XADD', KEYS[7], '*', 'k', 'engine', 'engine', engine_id)
end
return {'OK'}

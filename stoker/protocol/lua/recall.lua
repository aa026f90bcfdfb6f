-- recall: have an engine register again, with what it holds: the server may have forgotten what both knew. Idempotent.
-- KEYS  1 leader  2 engine  3 engine inbox
-- ARGV  1 epoch
-- OK    {"OK"}        ERR  NOT_LEADER
-- include leadership
if not leads(KEYS[1], ARGV[1]) then
  return {'NOT_LEADER'}
end
-- `assign` gives it nothing until then. It is told at once; should it miss that, its next renewal is refused.
local have = redis.call('HMGET', KEYS[2], 'status', 'recalled')
if (have[1] == 'running' or have[1] == 'draining') and have[2] ~= '1' then
  redis.call('HSET', KEYS[2], 'recalled', '1')
  redis.call('XADD', KEYS[3], '*', 'k', 'recall')
end
return {'OK'}

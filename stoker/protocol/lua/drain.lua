-- drain: an engine is given nothing more, and told to finish and leave. Idempotent.
-- KEYS  1 leases  2 engine  3 engine inbox  4 wake
-- ARGV  1 engine id  2 order (JSON)
-- OK    {"OK"}        ERR  ENGINE_UNKNOWN  ENGINE_AWAY
-- include common
local engine_id, order = ARGV[1], ARGV[2]

local have = redis.call('HMGET', KEYS[2], 'status', 'drain')
if not have[1] then
  return {'ENGINE_UNKNOWN'}
end
local told = have[2] and have[2] ~= ''
if told and have[1] == 'stopped' then
  return {'OK'}
end
local lease = redis.call('ZSCORE', KEYS[1], engine_id)
if (have[1] ~= 'running' and have[1] ~= 'draining') or not lease or tonumber(lease) < now_ms() then
  return {'ENGINE_AWAY'}
end
if have[2] ~= order then
  -- `assign` looks at the status: from here on nothing new is given to it. The daemon's reports do not undo it.
  redis.call('HSET', KEYS[2], 'status', 'draining', 'drain', order)
  redis.call('XADD', KEYS[3], '*', 'k', 'drain', 'body', order)
  redis.call('XADD', KEYS[4], '*', 'k', 'engine', 'engine', engine_id)
end
return {'OK'}

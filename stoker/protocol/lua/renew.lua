-- renew: extend an engine's lease, store its telemetry, tell it what to stop.
-- KEYS  1 leases  2 engine  3 engine tasks
-- ARGV  1 engine id  2 session  3 lease (ms)  4 telemetry (JSON)  5 held (JSON)
-- OK    {"OK", tasks to stop (JSON), task and cancel order, ...}        ERR  ENGINE_UNKNOWN  ENGINE_RECALLED
-- include common
local engine_id, session, lease = ARGV[1], ARGV[2], tonumber(ARGV[3])

if redis.call('HGET', KEYS[2], 'session') ~= session or not redis.call('ZSCORE', KEYS[1], engine_id) then
  return {'ENGINE_UNKNOWN'}
end
if redis.call('HGET', KEYS[2], 'recalled') == '1' then
  return {'ENGINE_RECALLED'}
end
local now = now_ms()
-- First a write that takes no memory: a server without any left lets the rest of the script pass after it.
redis.call('ZREM', KEYS[1], engine_id)
redis.call('ZADD', KEYS[1], text(now + lease), engine_id)
redis.call('HSET', KEYS[2], 'telemetry', ARGV[4], 'seen', text(now))
local lost, result = {}, {'OK', '[]'}
for task_id, attempt in pairs(cjson.decode(ARGV[5])) do
  local owned = redis.call('HGET', KEYS[3], task_id)
  if not owned or string.match(owned, '^%d+') ~= text(attempt) then
    lost[#lost + 1] = task_id
  elseif string.find(owned, ' ') then
    result[#result + 1] = task_id
    result[#result + 1] = owned
  end
end
if #lost > 0 then
  result[2] = cjson.encode(lost)
end
return result

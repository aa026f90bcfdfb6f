-- assign: give a queued task to an engine. Idempotent by token. The attempt number grows here and nowhere else.
-- KEYS  1 task  2 task events  3 pending  4 leader  5 engine  6 engine inbox  7 engine tasks  8 leases  9 control  10 queued
-- ARGV  1 task id  2 epoch  3 engine id  4 worker id  5 token  6 evict (JSON)  7 explanation (JSON)
-- OK    {"OK", attempt}        ERR  NOT_LEADER  TASK_UNKNOWN  NOT_QUEUED  ENGINE_GONE
-- include common, leadership, leaving
local task, events, inbox = KEYS[1], KEYS[2], KEYS[6]
local task_id, epoch, engine_id, worker_id, token, evict = ARGV[1], ARGV[2], ARGV[3], ARGV[4], ARGV[5], ARGV[6]

if not leads(KEYS[4], epoch) then
  return {'NOT_LEADER'}
end
local have = redis.call('HMGET', task, 'state', 'attempt', 'token_hash', 'request', 'counted', 'due')
if not have[1] then
  redis.call('ZREM', KEYS[3], task_id)
  return {'TASK_UNKNOWN'}
end
local token_hash = redis.sha1hex(token)
if have[3] == token_hash then
  return {'OK', have[2]}
end
if have[1] ~= '2' or (have[6] and have[6] ~= '') then
  return {'NOT_QUEUED'}
end
local lease = redis.call('ZSCORE', KEYS[8], engine_id)
local engine = redis.call('HMGET', KEYS[5], 'status', 'recalled')
if engine[1] ~= 'running' or engine[2] == '1' or not lease or tonumber(lease) < now_ms() then
  return {'ENGINE_GONE'}
end

local attempt = text(redis.call('HINCRBY', task, 'attempt', 1))
redis.call('HSET', task, 'engine', engine_id, 'worker', worker_id, 'token_hash', token_hash)
-- For the gateway, which believes no engine: whose attempt this is. A log may come after its attempt's end.
redis.call('HSET', KEYS[9], 'attempt', attempt, 'writer:' .. attempt, token_hash .. ' ' .. engine_id,
  'why:' .. attempt, ARGV[7])
redis.call('ZREM', KEYS[3], task_id)
count_out(KEYS[10], have[5])
redis.call('HSET', KEYS[7], task_id, attempt)
redis.call('XADD', inbox, '*', 'k', 'assign', 'request', have[4], 'attempt', attempt, 'token', token,
  'worker', worker_id, 'evict', evict)
move(task, events, '2', '3', attempt, '')
return {'OK', attempt}

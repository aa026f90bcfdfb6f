-- submit: accept a task and queue it. Idempotent by task id and by idempotency key.
-- KEYS  1 task  2 task events  3 control  4 pending  5 wake  6 owner tasks  7 idempotency
-- ARGV  1 task id  2 request (JSON)  3 spec (JSON)  4 owner (JSON)  5 fields (JSON)  6 body hash
-- OK    {"OK", task id}        ERR  IDEMPOTENCY_MISMATCH
-- include common
local task, events, control = KEYS[1], KEYS[2], KEYS[3]
local task_id, request, spec, owner, body_hash = ARGV[1], ARGV[2], ARGV[3], ARGV[4], ARGV[6]
local fields = cjson.decode(ARGV[5])

if redis.call('EXISTS', task) == 1 then
  return {'OK', task_id}
end
if body_hash ~= '' then
  local known = redis.call('HMGET', KEYS[7], 'task', 'body')
  if known[1] then
    return known[2] == body_hash and {'OK', known[1]} or {'IDEMPOTENCY_MISMATCH', known[1]}
  end
  redis.call('HSET', KEYS[7], 'task', task_id, 'body', body_hash)
  redis.call('PEXPIRE', KEYS[7], fields.idempotency_ms)
end

local now = now_ms()
local at = text(now)
local score = text(now - fields.priority * 1e13)
redis.call('HSET', task, 'request', request, 'state', '2', 'attempt', '0', 'spent', '0',
  'max_attempts', fields.max_attempts, 'retention_ms', text(fields.retention_ms), 'group', fields.group,
  'notify', fields.notify, 'score', score, 'created', at, 'updated', at,
  'history', '0,1,' .. at .. ';0,2,' .. at .. ';')
redis.call('HSET', control, 'spec', spec, 'owner', owner, 'created', at)
redis.call('ZADD', KEYS[4], score, task_id)
redis.call('ZADD', KEYS[6], at, task_id)
redis.call('XADD', KEYS[5], '*', 'k', 'submitted', 'task', task_id, 'spec', spec, 'at', at)
return {'OK', task_id}

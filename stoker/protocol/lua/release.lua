-- release: a task whose pause is over, or whose time has come, joins the queue. Idempotent.
-- KEYS  1 task  2 control  3 pending  4 delayed  5 leader
-- ARGV  1 task id  2 epoch
-- OK    {"OK", spec (JSON), created (ms), queued (ms)}        ERR  NOT_LEADER  TASK_UNKNOWN  NOT_DUE
-- include common, leadership
local task, task_id = KEYS[1], ARGV[1]

if not leads(KEYS[5], ARGV[2]) then
  return {'NOT_LEADER'}
end
local have = redis.call('HMGET', task, 'state', 'score')
if have[1] ~= '2' then
  redis.call('ZREM', KEYS[4], task_id)
  return {'TASK_UNKNOWN'}
end
local due = redis.call('ZSCORE', KEYS[4], task_id)
if due and tonumber(due) > now_ms() or not due and not redis.call('ZSCORE', KEYS[3], task_id) then
  return {'NOT_DUE'}
end
redis.call('ZREM', KEYS[4], task_id)
redis.call('HSET', task, 'due', '', 'due_why', '')
redis.call('ZADD', KEYS[3], have[2], task_id)
redis.call('HSET', KEYS[2], 'queued', text(now_ms()))
local control = redis.call('HMGET', KEYS[2], 'spec', 'created', 'queued')
return {'OK', control[1], control[2], control[3]}

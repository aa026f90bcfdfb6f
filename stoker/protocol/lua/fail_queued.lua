-- fail_queued: the scheduler ends a task that waits and will not run (deadline, nothing can match).
-- KEYS  1 task  2 task events  3 control  4 pending  5 outbox  6 leader  7 queued  8 delayed
-- ARGV  1 task id  2 epoch  3 error code  4 error
-- OK    {"OK"}        ERR  NOT_LEADER  TASK_UNKNOWN  NOT_QUEUED
-- include common, ending, leadership, leaving
local task, task_id = KEYS[1], ARGV[1]

if not leads(KEYS[6], ARGV[2]) then
  return {'NOT_LEADER'}
end
local have = redis.call('HMGET', task, 'state', 'attempt', 'counted')
if not have[1] then
  return {'TASK_UNKNOWN'}
end
if have[1] ~= '2' then
  return {'NOT_QUEUED'}
end
redis.call('ZREM', KEYS[4], task_id)
count_out(KEYS[7], have[3])
redis.call('ZREM', KEYS[8], task_id)
redis.call('HSET', task, 'error_code', ARGV[3], 'error', ARGV[4])
move(task, KEYS[2], '2', '10', have[2], '')
settle(task, KEYS[2], KEYS[3], KEYS[5], task_id, '10')
return {'OK'}

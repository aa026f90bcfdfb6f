-- expire: the scheduler ends an attempt whose time is over, on a worker that does not end it. Idempotent by attempt.
-- KEYS  1 task  2 task events  3 control  4 wake  5 outbox  6 engine tasks  7 leader
-- ARGV  1 task id  2 epoch  3 attempt  4 error code  5 error
-- OK    {"OK", state}        ERR  NOT_LEADER  TASK_UNKNOWN  STALE_ATTEMPT
-- include common, ending, leadership
local task, task_id, attempt = KEYS[1], ARGV[1], ARGV[3]

if not leads(KEYS[7], ARGV[2]) then
  return {'NOT_LEADER'}
end
local have = redis.call('HMGET', task, 'state', 'attempt', 'cancel')
if not have[1] then
  return {'TASK_UNKNOWN'}
end
if have[2] ~= attempt or tonumber(have[1]) < 3 or tonumber(have[1]) > 8 then
  return {'STALE_ATTEMPT'}
end
local new = have[3] and have[3] ~= '' and '11' or '10'
if new == '10' then
  redis.call('HSET', task, 'error_code', ARGV[4], 'error', ARGV[5])
end
redis.call('HDEL', KEYS[6], task_id)
move(task, KEYS[2], have[1], new, attempt, '')
settle(task, KEYS[2], KEYS[3], KEYS[5], task_id, new)
redis.call('XADD', KEYS[4], '*', 'k', 'finished', 'task', task_id, 's', new, 'o', '{}')
return {'OK', new}

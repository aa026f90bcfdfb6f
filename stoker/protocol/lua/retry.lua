-- retry: an attempt failed in a way that another may not: queue the task after a pause, or end it. Idempotent by (task, attempt).
-- One that ran out of GPU memory gets one more attempt: with more of it, or elsewhere.
-- KEYS  1 task  2 task events  3 control  4 delayed  5 wake  6 outbox  7 engine tasks  8 queued
-- ARGV  1 task id  2 attempt  3 token  4 error  5 error code  6 kills  7 measures (JSON)
-- OK    {"OK", state}        ERR  TASK_UNKNOWN  STALE_ATTEMPT  ILLEGAL_MOVE
-- include common, attempt, ending, waiting, queueing
local task, task_id, attempt, token, reason = KEYS[1], ARGV[1], ARGV[2], ARGV[3], ARGV[4]
local writer = attempt .. ' ' .. redis.sha1hex(token)

local have = redis.call('HMGET', task, 'ended_by', 'state')
if have[1] == writer then
  return {'OK', have[2]}
end
local _, problem = owned_state(task, attempt, token)
if problem then
  return {problem}
end
local keys = {task = task, events = KEYS[2], control = KEYS[3], delayed = KEYS[4], wake = KEYS[5], outbox = KEYS[6],
  engine_tasks = KEYS[7], queued = KEYS[8], measures = ARGV[7]}
local loss = {reason = reason, code = ARGV[5], single = reason, kills = ARGV[6] == '1'}
loss.last = loss.code == 'gpu_out_of_memory' and redis.call('HINCRBY', task, 'shortages', 1) > 1
local state
redis.call('HSET', task, 'output', 'null', 'output_meta', 'null', 'ended_by', writer)
state, problem = put_back(keys, task_id, attempt, reason, loss, function(spent)
  return math.max(1, pause_ms(keys, spent))
end)
return {problem or 'OK', state}

-- hand_back: the engine returns a task that it did not start, or that it must stop. No attempt is spent, but for an only one.
-- A task with one attempt whose function may have begun (running, uploading) is not started a second time: it fails.
-- KEYS  1 task  2 task events  3 control  4 pending  5 wake  6 outbox  7 engine tasks  8 engine inbox  9 queued
-- ARGV  1 task id  2 attempt  3 token  4 reason  5 inbox entry
-- OK    {"OK", state}        ERR  TASK_UNKNOWN  STALE_ATTEMPT  ILLEGAL_MOVE
-- include common, attempt, ending, waiting, queueing
local task_id, attempt, token, reason = ARGV[1], ARGV[2], ARGV[3], ARGV[4]

redis.call('XDEL', KEYS[8], ARGV[5])
local old, problem = owned_state(KEYS[1], attempt, token)
if problem then
  return {problem}
end
local keys = {task = KEYS[1], events = KEYS[2], control = KEYS[3], pending = KEYS[4], wake = KEYS[5],
  outbox = KEYS[6], engine_tasks = KEYS[7], queued = KEYS[9]}
local loss
if (old == '7' or old == '8') and redis.call('HGET', KEYS[1], 'max_attempts') == '1' then
  loss = {reason = reason, code = 'worker_lost', last = true,
    single = 'The worker had to stop this task, which may not be started a second time (max_attempts is 1): ' .. reason}
end
local state
state, problem = put_back(keys, task_id, attempt, reason, loss, function()
  return 0
end)
if state == '2' and old ~= '3' then  -- it had begun: its time in the queue begins anew. Engines may not write `control`.
  redis.call('HSET', KEYS[1], 'returned', text(now_ms()))
end
return {problem or 'OK', state}

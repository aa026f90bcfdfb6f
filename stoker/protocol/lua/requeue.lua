-- requeue: the scheduler takes a task back from an engine that was lost, or does not end it. Idempotent by attempt.
-- An attempt that the engine had not taken is not spent.
-- KEYS  1 task  2 task events  3 control  4 pending  5 wake  6 outbox  7 engine tasks  8 leader  9 delayed  10 queued
-- ARGV  1 task id  2 epoch  3 attempt  4 reason  5 error code, '' = no attempt is spent
-- OK    {"OK", state}        ERR  NOT_LEADER  TASK_UNKNOWN  STALE_ATTEMPT  ILLEGAL_MOVE
-- include common, ending, leadership, waiting, queueing
local task_id, epoch, attempt, reason, code = ARGV[1], ARGV[2], ARGV[3], ARGV[4], ARGV[5]
-- So many engines may be lost with a task before they take it. It must outlive one that it waits behind and that ends
-- its machines (POISON), but may itself be what ends them.
local UNTAKEN = 6

if not leads(KEYS[8], epoch) then
  return {'NOT_LEADER'}
end
local have = redis.call('HMGET', KEYS[1], 'state', 'attempt')
if not have[1] or have[2] ~= attempt or tonumber(have[1]) < 3 or tonumber(have[1]) > 8 then
  -- Gone, ended, or taken back before: only the engine's own list may still name it. It may name a later attempt: this
  -- call is repeated by each new leader, and by one that read `wake` anew.
  local owned = redis.call('HGET', KEYS[7], task_id)
  if owned and string.match(owned, '^%d+') == attempt then
    redis.call('HDEL', KEYS[7], task_id)
  end
  return {have[1] and 'STALE_ATTEMPT' or 'TASK_UNKNOWN'}
end
local keys = {task = KEYS[1], events = KEYS[2], control = KEYS[3], pending = KEYS[4], wake = KEYS[5],
  outbox = KEYS[6], engine_tasks = KEYS[7], delayed = KEYS[9], queued = KEYS[10]}
local taken, loss = have[1] ~= '3', nil
if taken and code ~= '' then
  loss = {reason = reason, code = code, kills = code == 'worker_lost',
    single = 'The worker was lost while it ran this task: ' .. reason}
elseif code ~= '' and redis.call('HINCRBY', KEYS[1], 'untaken', 1) >= UNTAKEN then
  local why = text(UNTAKEN) .. ' workers were lost before they took this task, the last one because ' .. reason
  loss = {reason = why, code = 'poison', single = why, last = true}
end
local state, problem = put_back(keys, task_id, attempt, reason, loss, function(spent)
  return loss and pause_ms(keys, spent - 1) or 0  -- the lease was the first pause
end)
if state == '2' and taken then  -- it had begun: its time in the queue begins anew
  redis.call('HSET', KEYS[3], 'queued', text(now_ms()))
end
return {problem or 'OK', state}

-- cancel: end a queued task at once; ask the engine of any other. A task that has ended stays as it is.
-- KEYS  1 task  2 task events  3 control  4 pending  5 wake  6 outbox  7 engine inbox  8 engine tasks  9 queued  10 delayed
-- ARGV  1 task id  2 engine id  3 force  4 grace (ms)
-- OK    {"OK", state}        ERR  TASK_UNKNOWN  MOVED
-- include common, ending, leaving
local task, task_id, engine_id, force, grace = KEYS[1], ARGV[1], ARGV[2], ARGV[3], ARGV[4]

local have = redis.call('HMGET', task, 'state', 'attempt', 'engine', 'counted', 'document')
local state, attempt = have[1], have[2]
if not state then
  return {'TASK_UNKNOWN'}
end
if have[5] and tonumber(state) < 9 then  -- no worker runs it: its document ends it
  redis.call('HSET', task, 'cancel', force .. ' ' .. grace)
  redis.call('XADD', KEYS[6], '*', 'document', have[5])
  add_event(task, KEYS[2], false, 'k', 'cancel')
  return {'OK', state}
end
if state == '2' then
  redis.call('ZREM', KEYS[4], task_id)
  count_out(KEYS[9], have[4])
  redis.call('ZREM', KEYS[10], task_id)
  move(task, KEYS[2], state, '11', attempt, '')
  settle(task, KEYS[2], KEYS[3], KEYS[6], task_id, '11')
  redis.call('XADD', KEYS[5], '*', 'k', 'cancelled', 'task', task_id)
  return {'OK', '11'}
end
if tonumber(state) >= 9 then
  return {'OK', state}
end
if have[3] ~= engine_id then
  return {'MOVED', have[3]}
end
redis.call('HSET', task, 'cancel', force .. ' ' .. grace)
redis.call('HSET', KEYS[8], task_id, attempt .. ' ' .. force .. ' ' .. grace)
redis.call('XADD', KEYS[7], '*', 'k', 'cancel', 'task', task_id, 'attempt', attempt, 'force', force, 'grace', grace)
add_event(task, KEYS[2], false, 'k', 'cancel')
return {'OK', state}

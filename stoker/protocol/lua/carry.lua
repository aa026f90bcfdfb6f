-- carry: move a task that a document of the jobs runs (see begin) to running or to its end. Idempotent: an ended one stays.
-- KEYS  1 task  2 task events  3 control  4 outbox
-- ARGV  1 task id  2 state  3 output (JSON)  4 error  5 error code
-- OK    {"OK", state}        ERR  TASK_UNKNOWN  ILLEGAL_MOVE
-- include common, ending
local task, events, task_id, new = KEYS[1], KEYS[2], ARGV[1], ARGV[2]

local have = redis.call('HMGET', task, 'state', 'document')
local state = have[1]
if not state then
  return {'TASK_UNKNOWN'}
end
if not have[2] then
  return {'ILLEGAL_MOVE'}
end
if tonumber(state) >= 9 or state == new then
  return {'OK', state}
end
if new == '9' or new == '7' then
  for _, step in ipairs(state == '2' and {'3', '7'} or {}) do
    move(task, events, state, step, '0', '')
    state = step
  end
end
if new ~= '7' then
  redis.call('HSET', task, 'output', ARGV[3], 'error', ARGV[4], 'error_code', ARGV[5])
  local problem = move(task, events, state, new, '0', '')
  if problem then
    return {problem}
  end
  settle(task, events, KEYS[3], KEYS[4], task_id, new)
end
return {'OK', new}

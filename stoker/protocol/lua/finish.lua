-- finish: end an attempt with its outcome. Idempotent by (task, attempt).
-- KEYS  1 task  2 task events  3 control  4 wake  5 outbox  6 engine tasks
-- ARGV  1 task id  2 attempt  3 token  4 state  5 output (JSON)  6 output meta (JSON)  7 error (JSON: text, code)  8 measures (JSON)
-- OK    {"OK"}        ERR  TASK_UNKNOWN  STALE_ATTEMPT  ILLEGAL_MOVE
-- include common, attempt, ending
local task, events = KEYS[1], KEYS[2]
local task_id, attempt, token, state = ARGV[1], ARGV[2], ARGV[3], ARGV[4]

if redis.call('HGET', task, 'ended_by') == attempt .. ' ' .. redis.sha1hex(token) then
  return {'OK'}
end
local old, problem = owned_state(task, attempt, token)
if problem then
  return {problem}
end
if not (ALLOWED[old] and ALLOWED[old][state]) then
  return {'ILLEGAL_MOVE'}
end
local problem_text = cjson.decode(ARGV[7])
redis.call('HSET', task, 'output', ARGV[5], 'output_meta', ARGV[6],
  'error', problem_text[1], 'error_code', problem_text[2],
  'ended_by', attempt .. ' ' .. redis.sha1hex(token))
redis.call('HDEL', KEYS[6], task_id)
move(task, events, old, state, attempt, '')
settle(task, events, KEYS[3], KEYS[5], task_id, state)
redis.call('XADD', KEYS[4], '*', 'k', 'finished', 'task', task_id, 's', state, 'o', ARGV[8])
return {'OK'}

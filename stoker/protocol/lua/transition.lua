-- transition: an attempt enters its next state. Idempotent by (attempt, state).
-- KEYS  1 task  2 task events  3 wake
-- ARGV  1 task id  2 attempt  3 token  4 state  5 detail
-- OK    {"OK"}        ERR  TASK_UNKNOWN  STALE_ATTEMPT  ILLEGAL_MOVE
-- include common, attempt
local task_id, attempt, token, state, detail = ARGV[1], ARGV[2], ARGV[3], ARGV[4], ARGV[5]

local old, problem = owned_state(KEYS[1], attempt, token)
if problem then
  return {problem}
end
if old == state then
  return {'OK'}
end
problem = move(KEYS[1], KEYS[2], old, state, attempt, detail)
if problem then
  return {problem}
end
redis.call('XADD', KEYS[3], '*', 'k', 'moved', 'task', task_id, 's', state)
return {'OK'}

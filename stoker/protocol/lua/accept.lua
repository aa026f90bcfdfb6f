-- accept: the engine confirms an assignment and enters the first state that is not skipped. Idempotent.
-- KEYS  1 task  2 task events  3 engine inbox
-- ARGV  1 attempt  2 token  3 state  4 inbox entry
-- OK    {"OK"}        ERR  TASK_UNKNOWN  STALE_ATTEMPT  ILLEGAL_MOVE
-- include common, attempt
local attempt, token, state, entry = ARGV[1], ARGV[2], ARGV[3], ARGV[4]

redis.call('XDEL', KEYS[3], entry)
local old, problem = owned_state(KEYS[1], attempt, token)
if problem then
  return {problem}
end
if old == state then
  return {'OK'}
end
if old ~= '3' then
  return {'ILLEGAL_MOVE'}
end
problem = move(KEYS[1], KEYS[2], old, state, attempt, '')
return {problem or 'OK'}

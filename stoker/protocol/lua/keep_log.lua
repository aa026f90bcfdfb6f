-- keep_log: name a stored chunk of an attempt's log. Idempotent by (attempt, first line). Also after the end.
-- KEYS  1 control  2 task logs  3 logged tasks
-- ARGV  1 task id  2 attempt  3 token  4 first line  5 chunk (JSON)
-- OK    {"OK"}        ERR  TASK_UNKNOWN  STALE_ATTEMPT
local task_id, attempt, token, first, chunk = ARGV[1], ARGV[2], ARGV[3], ARGV[4], ARGV[5]

local writer = redis.call('HMGET', KEYS[1], 'created', 'writer:' .. attempt)
if not writer[1] then
  return {'TASK_UNKNOWN'}
end
if not writer[2] or string.match(writer[2], '^%x+') ~= redis.sha1hex(token) then
  return {'STALE_ATTEMPT'}
end
-- Both outlive the task: who removes the bytes reads here what there is to remove.
redis.call('SADD', KEYS[3], task_id)
redis.call('HSET', KEYS[2], attempt .. ':' .. first, chunk)
return {'OK'}

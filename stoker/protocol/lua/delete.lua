-- delete: forget a task that has ended. Idempotent by mark.
-- KEYS  1 task  2 task events  3 control  4 owner tasks  5 task deltas  6 mark
-- ARGV  1 task id
-- OK    {"OK"}        ERR  TASK_UNKNOWN  NOT_ENDED
-- include removal
if removed_before(KEYS[6]) then
  return {'OK'}
end
local state = redis.call('HGET', KEYS[1], 'state')
if not state then
  return {'TASK_UNKNOWN'}
end
if tonumber(state) < 9 then
  return {'NOT_ENDED'}
end
redis.call('DEL', KEYS[1], KEYS[2], KEYS[3], KEYS[5])
redis.call('ZREM', KEYS[4], ARGV[1])
mark_removal(KEYS[6])
return {'OK'}

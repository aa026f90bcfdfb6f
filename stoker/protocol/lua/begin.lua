-- begin: accept a task that no worker runs: a document of the jobs does, which is looked at now. Idempotent as `submit` is.
-- KEYS  1 task  2 task events  3 control  4 owner tasks  5 idempotency  6 outbox  7 due documents  8 owners
-- ARGV  1 task id  2 request (JSON)  3 spec (JSON)  4 owner (JSON)  5 fields (JSON)  6 body hash  7 document (kind id)
-- OK    {"OK", task id}        ERR  IDEMPOTENCY_MISMATCH
-- include common, waiting, submission
local keys = {task = KEYS[1], events = KEYS[2], control = KEYS[3], owner_tasks = KEYS[4], idempotency = KEYS[5],
  owners = KEYS[8]}
local task_id, document = ARGV[1], ARGV[7]

local answer = known_task(keys, task_id, ARGV[6])
if answer then
  return answer
end
local now = now_ms()
store_task(keys, task_id, ARGV[2], ARGV[3], ARGV[4], cjson.decode(ARGV[5]), ARGV[6], now, now)
redis.call('HSET', KEYS[1], 'document', document)
redis.call('ZADD', KEYS[7], text(now + 5000), document)  -- the outbox is quicker, unless its reader dies
redis.call('XADD', KEYS[6], '*', 'document', document, 'revision', '0')
return {'OK', task_id}

-- submit: accept a task and queue it. Idempotent by task id and by idempotency key.
-- KEYS  1 task  2 task events  3 control  4 pending  5 wake  6 owner tasks  7 idempotency  8 queued  9 delayed  10 owners
-- ARGV  1 task id  2 request (JSON)  3 spec (JSON)  4 owner (JSON)  5 fields (JSON)  6 body hash
-- OK    {"OK", task id}        ERR  IDEMPOTENCY_MISMATCH  QUEUE_FULL  KEY_QUEUE_FULL
-- include common, waiting, submission
local keys = {task = KEYS[1], events = KEYS[2], control = KEYS[3], pending = KEYS[4], wake = KEYS[5],
  owner_tasks = KEYS[6], idempotency = KEYS[7], queued = KEYS[8], delayed = KEYS[9], owners = KEYS[10]}
local task_id, request, spec, owner, body_hash = ARGV[1], ARGV[2], ARGV[3], ARGV[4], ARGV[6]
local fields = cjson.decode(ARGV[5])

return known_task(keys, task_id, body_hash)
  or no_room(keys, fields)
  or queue_task(keys, task_id, request, spec, owner, fields, body_hash)

-- call: accept a task of a session and queue it; the first one opens the session. Idempotent as `submit` is.
-- KEYS  1 task  2 task events  3 control  4 pending  5 wake  6 owner tasks  7 idempotency  8 session  9 session tasks  10 sessions  11 queued  12 delayed  13 owners
-- ARGV  1 task id  2 request (JSON)  3 spec (JSON)  4 owner (JSON)  5 fields (JSON)  6 body hash  7 session id  8 session (JSON), or ''
-- OK    {"OK", task id}        ERR  IDEMPOTENCY_MISMATCH  QUEUE_FULL  KEY_QUEUE_FULL  SESSION_UNKNOWN  SESSION_OVER
-- include common, waiting, submission, sessions
local keys = {task = KEYS[1], events = KEYS[2], control = KEYS[3], pending = KEYS[4], wake = KEYS[5],
  owner_tasks = KEYS[6], idempotency = KEYS[7], queued = KEYS[11], delayed = KEYS[12], owners = KEYS[13]}
local session, tasks, index = KEYS[8], KEYS[9], KEYS[10]
local task_id, body_hash, session_id, info = ARGV[1], ARGV[6], ARGV[7], ARGV[8]

local fields = cjson.decode(ARGV[5])
local answer = known_task(keys, task_id, body_hash) or no_room(keys, fields)
if answer then
  return answer
end
local now = text(now_ms())
if info ~= '' then
  redis.call('HSET', session, 'info', info, 'idle_ms', text(cjson.decode(info).idle_s * 1000), 'end', '',
    'created', now, 'calls', '0', 'worker', '', 'engine', '')
else
  local over = session_end(session, tasks)
  if over ~= '' then
    return over and {'SESSION_OVER', over} or {'SESSION_UNKNOWN'}
  end
end
redis.call('SADD', tasks, task_id)
redis.call('HSET', session, 'task', task_id, 'called', now)
redis.call('HINCRBY', session, 'calls', 1)
touch_session(session, tasks, index, session_id)
return queue_task(keys, task_id, ARGV[2], ARGV[3], ARGV[4], fields, body_hash)

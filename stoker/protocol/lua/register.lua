-- register: an engine joins or returns. What it no longer holds is given back; its inbox starts empty.
-- KEYS  1 leases  2 engine  3 engine tasks  4 engine inbox  5 wake  6 engines
-- ARGV  1 engine id  2 session  3 info (JSON)  4 report (JSON)  5 lease (ms)  6 held (JSON)
-- OK    {"OK", tasks it claims but does not own (JSON)}        ERR  none
-- include common, orphans
local engine_id, session, lease = ARGV[1], ARGV[2], tonumber(ARGV[5])
local held = cjson.decode(ARGV[6])
local now = now_ms()

local lost = {}
for task_id, attempt in pairs(held) do
  local owned = redis.call('HGET', KEYS[3], task_id)
  if not owned or string.match(owned, '^%d+') ~= text(attempt) then
    lost[#lost + 1] = task_id
  end
end
wake_orphans(KEYS[5], engine_id, KEYS[3], held, 'the worker daemon was restarted')
redis.call('DEL', KEYS[4])
redis.call('HSET', KEYS[2], 'session', session, 'info', ARGV[3], 'report', ARGV[4], 'status', 'running',
  'registered', text(now), 'seen', text(now))
redis.call('ZADD', KEYS[1], text(now + lease), engine_id)
redis.call('ZADD', KEYS[6], text(now), engine_id)
redis.call('XADD', KEYS[5], '*', 'k', 'engine', 'engine', engine_id)
return {'OK', #lost > 0 and cjson.encode(lost) or '[]'}

-- register: an engine joins or returns. What it no longer holds is given back; its inbox starts empty, but for a drain.
-- KEYS  1 leases  2 engine  3 engine tasks  4 engine inbox  5 wake  6 engines  7 protocol
-- ARGV  1 engine id  2 session  3 info (JSON)  4 report (JSON)  5 lease (ms)  6 held (JSON)  7 '1' = the same process returns
-- OK    {"OK", tasks it claims but does not own (JSON)}        ERR  ENGINE_INCOMPATIBLE
-- include common, orphans
local engine_id, session, lease = ARGV[1], ARGV[2], tonumber(ARGV[5])
local held = cjson.decode(ARGV[6])
local now = now_ms()

-- Whoever led last said what the control plane speaks; each side must take the other's version.
local about = cjson.decode(ARGV[3])
local control = redis.call('HMGET', KEYS[7], 'version', 'oldest', 'release')
if control[1] and (about.protocol_version < tonumber(control[2]) or tonumber(control[1]) < about.protocol_oldest) then
  wake_orphans(KEYS[5], engine_id, KEYS[3], {}, 'a worker daemon that does not fit took the place of the one before')
  redis.call('ZREM', KEYS[1], engine_id)
  redis.call('HSET', KEYS[2], 'session', '', 'info', ARGV[3], 'report', '{}', 'status', 'refused',
    'registered', text(now), 'seen', text(now), 'drain', '')
  redis.call('ZADD', KEYS[6], text(now), engine_id)
  redis.call('XADD', KEYS[5], '*', 'k', 'engine', 'engine', engine_id)
  return {'ENGINE_INCOMPATIBLE', control[1], control[2], control[3]}
end

local lost = {}
for task_id, attempt in pairs(held) do
  local owned = redis.call('HGET', KEYS[3], task_id)
  if not owned or string.match(owned, '^%d+') ~= text(attempt) then
    lost[#lost + 1] = task_id
  end
end
wake_orphans(KEYS[5], engine_id, KEYS[3], held, ARGV[7] == '1' and 'the worker returned without it'
  or 'the worker daemon was restarted')
redis.call('DEL', KEYS[4])
-- A drain holds for the process that it was meant for: it may have left the inbox unread. A new one begins anew.
local drain = ARGV[7] == '1' and redis.call('HGET', KEYS[2], 'drain') or ''
if drain ~= '' then
  redis.call('XADD', KEYS[4], '*', 'k', 'drain', 'body', drain)
end
local status = (drain ~= '' or cjson.decode(ARGV[4]).draining) and 'draining' or 'running'
redis.call('HSET', KEYS[2], 'session', session, 'info', ARGV[3], 'report', ARGV[4], 'status', status,
  'registered', text(now), 'seen', text(now), 'drain', drain, 'recalled', '')
redis.call('ZADD', KEYS[1], text(now + lease), engine_id)
redis.call('ZADD', KEYS[6], text(now), engine_id)
redis.call('XADD', KEYS[5], '*', 'k', 'engine', 'engine', engine_id)
return {'OK', #lost > 0 and cjson.encode(lost) or '[]'}

-- deltas: increments of a running attempt's output, with the output they add up to. What is there already is skipped.
-- KEYS  1 task  2 task deltas
-- ARGV  1 attempt  2 token  3 first number  4 last number  5 deltas (JSON)  6 partial (JSON or '')  7 limit (bytes)  8 kept (ms)
-- OK    {"OK"}        ERR  TASK_UNKNOWN  STALE_ATTEMPT
-- include common, attempt
local task, deltas = KEYS[1], KEYS[2]
local attempt, token, first, last = ARGV[1], ARGV[2], ARGV[3], tonumber(ARGV[4])
local increments, partial, limit, kept_ms = ARGV[5], ARGV[6], tonumber(ARGV[7]), ARGV[8]

local _, problem = owned_state(task, attempt, token)
if problem then
  return {problem}
end
local have = redis.call('HMGET', task, 'delta_attempt', 'delta_last', 'delta_bytes')
if have[1] ~= attempt then
  redis.call('DEL', deltas)
  have = {attempt, '0', '0'}
end
if last <= tonumber(have[2]) then
  return {'OK'}
end
if increments ~= '[]' then
  redis.call('XADD', deltas, '*', 'a', attempt, 'f', first, 'd', increments)
end
local bytes = tonumber(have[3]) + #increments
if bytes > limit then
  -- Bounded: the older half goes. A reader that still wanted it sees the gap in the numbers.
  redis.call('XTRIM', deltas, 'MAXLEN', math.ceil(redis.call('XLEN', deltas) / 2))
  bytes = bytes / 2
end
redis.call('PEXPIRE', deltas, kept_ms)
redis.call('HSET', task, 'delta_attempt', attempt, 'delta_last', text(last), 'delta_bytes', text(bytes))
if partial ~= '' then
  redis.call('HSET', task, 'output', partial)
end
announce(task, '0-0', false)
return {'OK'}

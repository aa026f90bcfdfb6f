-- append: log lines and the newest partial output of a running attempt. Lines that are already there are skipped.
-- KEYS  1 task  2 task events
-- ARGV  1 attempt  2 token  3 lines (JSON or '')  4 last line number  5 partial (JSON or '')  6 dropped  7 log limit (bytes)
-- OK    {"OK"}        ERR  TASK_UNKNOWN  STALE_ATTEMPT
-- include common, attempt
local task, events = KEYS[1], KEYS[2]
local attempt, token, lines, last, partial, dropped, limit =
  ARGV[1], ARGV[2], ARGV[3], tonumber(ARGV[4]), ARGV[5], ARGV[6], tonumber(ARGV[7])

local _, problem = owned_state(task, attempt, token)
if problem then
  return {problem}
end
if partial ~= '' then
  -- One such event is kept, the last: a task may yield for hours.
  local before = redis.call('HGET', task, 'output_event')
  local id = add_event(task, events, false, 'k', 'output')
  redis.call('HSET', task, 'output', partial, 'output_event', id)
  if before then
    redis.call('XDEL', events, before)
  end
end
if lines == '' then
  return {'OK'}
end
local have = redis.call('HMGET', task, 'log_attempt', 'log_last', 'log_bytes')
if have[1] == attempt and last <= tonumber(have[2] or '0') then
  return {'OK'}
end
add_event(task, events, false, 'k', 'log', 'l', lines)
local bytes = tonumber(have[3] or '0') + #lines
if bytes > limit then
  -- The live tail is bounded: forget its older half, and let readers see that it was cut.
  local length = redis.call('XLEN', events)
  redis.call('XTRIM', events, 'MAXLEN', math.ceil(length / 2))
  bytes = bytes / 2
  redis.call('HSET', task, 'log_cut', '1')
end
redis.call('HSET', task, 'log_attempt', attempt, 'log_last', text(last), 'log_bytes', text(bytes))
if dropped ~= '0' then
  redis.call('HINCRBY', task, 'log_dropped', dropped)
end
return {'OK'}

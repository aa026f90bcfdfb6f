-- note_refusal: record an attempt that was refused, once in a time for one who tries.
-- KEYS  1 audit of refusals  2 who tried
-- ARGV  1 change (JSON)  2 changes kept  3 time (ms)
-- OK    {"OK", recorded (0 or 1)}        ERR  none
local change, kept, window = ARGV[1], ARGV[2], ARGV[3]

if redis.set_repl then
  -- That somebody tried costs no write to disk and no copy; its record does.
  redis.set_repl(redis.REPL_NONE)
end
if not redis.call('SET', KEYS[2], '1', 'NX', 'PX', window) then
  return {'OK', 0}
end
if redis.set_repl then
  redis.set_repl(redis.REPL_ALL)
end
redis.call('XADD', KEYS[1], 'MAXLEN', '~', kept, '*', 'change', change)
return {'OK', 1}

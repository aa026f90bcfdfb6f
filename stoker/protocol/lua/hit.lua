-- hit: count one request in a fixed window of time, which begins with the first.
-- KEYS  1 counter
-- ARGV  1 window (ms)
-- OK    {"OK", count, what is left of the window (ms)}        ERR  none
if redis.set_repl then
  -- A count costs no write to disk and no copy: a server that starts anew counts anew.
  redis.set_repl(redis.REPL_NONE)
end
local count = redis.call('INCR', KEYS[1])
if count == 1 then
  redis.call('PEXPIRE', KEYS[1], ARGV[1])
end
return {'OK', count, redis.call('PTTL', KEYS[1])}

-- take_call: a call begins, by a lease; not while another process holds it. Idempotent by token.
-- KEYS  1 call
-- ARGV  1 lease (ms)  2 token
-- OK    {"OK", taken (1), or 0 = another one makes it}        ERR  none
local mine = 'held ' .. ARGV[2]
local state = redis.call('GET', KEYS[1])
if state and state ~= 'waits' and state ~= mine then
  return {'OK', 0}
end
redis.call('SET', KEYS[1], mine, 'PX', ARGV[1])
return {'OK', 1}

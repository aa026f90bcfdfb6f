-- take_call: a call begins, by a lease; not while another process holds it.
-- KEYS  1 call
-- ARGV  1 lease (ms)
-- OK    {"OK", taken (1), or 0 = another one makes it}        ERR  none
if redis.call('GET', KEYS[1]) == 'held' then
  return {'OK', 0}
end
redis.call('SET', KEYS[1], 'held', 'PX', ARGV[1])
return {'OK', 1}

-- ask_call: an address is to be called for a part of a chat, unless that waits for its turn or goes on already.
-- KEYS  1 call  2 calls
-- ARGV  1 call (text)  2 forgotten after (ms): whoever took it may have died before it began
-- OK    {"OK", asked (1), or 0 = it is under way}        ERR  none
if not redis.call('SET', KEYS[1], 'waits', 'NX', 'PX', ARGV[2]) then
  return {'OK', 0}
end
redis.call('RPUSH', KEYS[2], ARGV[1])
return {'OK', 1}

-- take_due: the documents whose time has come, which are due again later: whoever takes one may die.
-- KEYS  1 due documents
-- ARGV  1 most  2 later (ms)  3 all: also those whose time has not come ('1' or '0')
-- OK    {"OK", {name, time, name, time ...}}        ERR  none
-- include common
local now = now_ms()
local found = redis.call('ZRANGEBYSCORE', KEYS[1], '-inf', ARGV[3] == '1' and '+inf' or text(now),
  'WITHSCORES', 'LIMIT', 0, ARGV[1])
for i = 1, #found, 2 do
  redis.call('ZADD', KEYS[1], text(now + tonumber(ARGV[2])), found[i])
end
return {'OK', found}

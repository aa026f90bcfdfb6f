-- take_due: the documents whose time has come, which are due again later: whoever takes one may die.
-- KEYS  1 due documents
-- ARGV  1 most  2 later (ms)  3 all: also those whose time has not come, which keep it ('1' or '0')
-- OK    {"OK", now (ms), {name ...}}        ERR  none
-- include common
local now = now_ms()
local found = redis.call('ZRANGEBYSCORE', KEYS[1], '-inf', ARGV[3] == '1' and '+inf' or text(now),
  'WITHSCORES', 'LIMIT', 0, ARGV[1])
local names = {}
for i = 1, #found, 2 do
  names[#names + 1] = found[i]
  if tonumber(found[i + 1]) <= now then
    redis.call('ZADD', KEYS[1], text(now + tonumber(ARGV[2])), found[i])
  end
end
return {'OK', text(now), names}

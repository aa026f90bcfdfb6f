-- pulse: store what a process says of its loops, with the server's time; forget processes that are gone.
-- KEYS  1 pulses
-- ARGV  1 process  2 report (JSON)  3 kept (ms)
-- OK    {"OK"}        ERR  none
-- include common
local now = now_ms()
local told = redis.call('HGETALL', KEYS[1])
for i = 1, #told, 2 do
  local at = tonumber(string.match(told[i + 1], '^%d+'))
  if told[i] == ARGV[1] or not at or now - at > tonumber(ARGV[3]) then
    redis.call('HDEL', KEYS[1], told[i])
  end
end
redis.call('HSET', KEYS[1], ARGV[1], text(now) .. ' ' .. ARGV[2])
redis.call('PEXPIRE', KEYS[1], ARGV[3])
return {'OK'}

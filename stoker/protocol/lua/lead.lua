-- lead: take the leadership of a pool, or keep it. The epoch grows with every new leader. Idempotent by claim.
-- KEYS  1 leader  2 epoch  3 protocol
-- ARGV  1 holder  2 time to live (ms)  3 epoch held, or ''  4 protocol version  5 oldest that it takes  6 release  7 claim
-- OK    {"OK", epoch}        ERR  NOT_LEADER
local now = redis.call('GET', KEYS[1])
if not now then
  local epoch = string.format('%.0f', redis.call('INCR', KEYS[2]))
  redis.call('SET', KEYS[1], epoch .. ':' .. ARGV[1], 'PX', ARGV[2])
  redis.call('HSET', KEYS[3], 'version', ARGV[4], 'oldest', ARGV[5], 'release', ARGV[6], 'claim', ARGV[7])
  return {'OK', epoch}
end
if ARGV[3] ~= '' and now == ARGV[3] .. ':' .. ARGV[1] then
  redis.call('PEXPIRE', KEYS[1], ARGV[2])
  return {'OK', ARGV[3]}
end
local epoch, holder = string.match(now, '^(%d+):(.*)$')
if holder == ARGV[1] and redis.call('HGET', KEYS[3], 'claim') == ARGV[7] then
  return {'OK', epoch}
end
return {'NOT_LEADER'}

-- resign: give up the leadership, so that a standby need not wait for its end.
-- KEYS  1 leader
-- ARGV  1 holder  2 epoch
-- OK    {"OK"}        ERR  NOT_LEADER
if redis.call('GET', KEYS[1]) ~= ARGV[2] .. ':' .. ARGV[1] then
  return {'NOT_LEADER'}
end
redis.call('DEL', KEYS[1])
return {'OK'}

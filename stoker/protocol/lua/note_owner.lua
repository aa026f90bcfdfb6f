-- note_owner: keep an owner in mind while one of his indexes holds what may expire, and forget him after that. Idempotent.
-- KEYS  1 owners  2 owner tasks  3 owner flow runs  4 owner chats
-- ARGV  1 owner id
-- OK    {"OK"}        ERR  none
local held = redis.call('ZCARD', KEYS[2]) + redis.call('ZCARD', KEYS[3]) + redis.call('ZCARD', KEYS[4])
redis.call(held > 0 and 'SADD' or 'SREM', KEYS[1], ARGV[1])
return {'OK'}

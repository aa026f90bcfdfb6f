-- delete_document: forget a document. Idempotent.
-- KEYS  1 document  2 document parts  3 owner documents  4 due documents
-- ARGV  1 name (kind id)
-- OK    {"OK"}        ERR  none
-- include common
redis.call('DEL', KEYS[1], KEYS[2])
redis.call('ZREM', KEYS[3], string.match(ARGV[1], ' (.*)$'))
redis.call('ZREM', KEYS[4], ARGV[1])
announce_document(KEYS[1], '0')
return {'OK'}

-- put_document: write a document, if it is still as the writer read it. Idempotent by writer.
-- KEYS  1 document  2 document parts  3 owner documents  4 due documents  5 outbox  6 owners
-- ARGV  1 name (kind id)  2 revision that was read, 0 = none  3 writer  4 owner id  5 body (JSON)  6 parts (JSON: name -> text, '' = remove)  7 fields (JSON: due_ms, keep_ms, wake)
-- OK    {"OK", revision}        ERR  DOCUMENT_CHANGED
-- include common
local document, parts, due = KEYS[1], KEYS[2], KEYS[4]
local name, read, writer, fields = ARGV[1], tonumber(ARGV[2]), ARGV[3], cjson.decode(ARGV[7])

local have = redis.call('HMGET', document, 'revision', 'writer')
if have[2] == writer then
  return {'OK', have[1]}
end
if tonumber(have[1] or '0') ~= read then
  return {'DOCUMENT_CHANGED', have[1] or '0'}
end
local now = now_ms()
local revision = text(read + 1)
redis.call('HSET', document, 'revision', revision, 'writer', writer, 'owner', ARGV[4], 'body', ARGV[5], 'updated', text(now))
if read == 0 then
  redis.call('HSET', document, 'created', text(now))
  redis.call('ZADD', KEYS[3], text(now), string.match(name, ' (.*)$'))
  redis.call('SADD', KEYS[6], ARGV[4])
end
for part, value in pairs(cjson.decode(ARGV[6])) do
  if value == '' then
    redis.call('HDEL', parts, part)
  else
    redis.call('HSET', parts, part, value)
  end
end
if fields.due_ms < 0 then
  redis.call('ZREM', due, name)
else
  redis.call('ZADD', due, text(now + fields.due_ms), name)
end
for _, key in ipairs({document, parts}) do
  if fields.keep_ms > 0 then
    redis.call('PEXPIRE', key, text(fields.keep_ms))
  else
    redis.call('PERSIST', key)
  end
end
if fields.wake then
  redis.call('XADD', KEYS[5], '*', 'document', name)
end
announce_document(document, revision)
return {'OK', revision}

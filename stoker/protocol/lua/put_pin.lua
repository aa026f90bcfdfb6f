-- put_pin: write or remove what is to stay loaded, and wake the scheduler. Idempotent by record, a removal by mark.
-- KEYS  1 pins  2 pin states  3 wake  4 audit  5 mark
-- ARGV  1 pin id  2 pin (JSON), '' = remove it  3 most pins  4 change (JSON or '')  5 changes kept
-- OK    {"OK"}        ERR  PIN_LIMIT  PIN_UNKNOWN
-- include audit, removal
local pin_id, pin = ARGV[1], ARGV[2]

local known = redis.call('HGET', KEYS[1], pin_id)
if known == pin or pin == '' and removed_before(KEYS[5]) then
  return {'OK'}
end
if pin == '' and not known then
  return {'PIN_UNKNOWN'}
end
if not known and redis.call('HLEN', KEYS[1]) >= tonumber(ARGV[3]) then
  return {'PIN_LIMIT', ARGV[3]}
end
if pin == '' then
  redis.call('HDEL', KEYS[1], pin_id)
  mark_removal(KEYS[5])
else
  redis.call('HSET', KEYS[1], pin_id, pin)
end
-- What was found of the pin before is not true of it as it is now.
redis.call('HDEL', KEYS[2], pin_id)
redis.call('XADD', KEYS[3], '*', 'k', 'pins')
record_change(KEYS[4], ARGV[4], ARGV[5])
return {'OK'}

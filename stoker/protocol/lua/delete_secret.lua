-- delete_secret: forget a secret, retire the setups that were given it, and record that. Idempotent by mark.
-- KEYS  1 secrets of its owner  2 uses of the secret  3 retired setups  4 audit  5 mark
-- ARGV  1 name  2 most retired setups  3 change (JSON or '')  4 changes kept
-- OK    {"OK", deleted (1), or 0 = there was none}        ERR  none
-- include common, retiring, audit, removal
if removed_before(KEYS[5]) then
  return {'OK', 1}
end
if redis.call('HDEL', KEYS[1], ARGV[1]) == 0 then
  return {'OK', 0}
end
retire_uses(KEYS[2], KEYS[3], ARGV[2])
record_change(KEYS[4], ARGV[3], ARGV[4])
mark_removal(KEYS[5])
return {'OK', 1}

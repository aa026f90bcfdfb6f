-- retiring: have the instances unloaded that were given a secret. Needs `common`.

local function retire_uses(uses, retired, kept)
  local now = text(now_ms())
  for _, setup in ipairs(redis.call('ZRANGE', uses, 0, -1)) do
    redis.call('ZADD', retired, now, setup)
  end
  redis.call('ZREMRANGEBYRANK', retired, 0, -tonumber(kept) - 1)
  redis.call('DEL', uses)
end

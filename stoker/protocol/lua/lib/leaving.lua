-- leaving: a task that was counted as waiting waits no more.

local function count_out(queued, whose)
  if whose and whose ~= '' and redis.call('HINCRBY', queued, whose, -1) <= 0 then
    redis.call('HDEL', queued, whose)
  end
end

-- orphans: name the tasks that an engine had and no longer runs; the scheduler takes them back.

local function wake_orphans(wake, engine_id, engine_tasks, held, reason)
  local owned = redis.call('HGETALL', engine_tasks)
  for i = 1, #owned, 2 do
    local attempt = string.match(owned[i + 1], '^%d+')
    if text(held[owned[i]] or 0) ~= attempt then
      redis.call('XADD', wake, '*', 'k', 'orphaned', 'task', owned[i], 'engine', engine_id,
        'attempt', attempt, 'reason', reason)
    end
  end
end

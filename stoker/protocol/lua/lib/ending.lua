-- ending: what every ending of a task does, whoever ends it.

local END_FIELDS = {'token_hash', 'cancel'}

-- Drop what only a live task needs, start the retention clock, tell who waits for the ending.
local function settle(task, events, control, outbox, task_id, state)
  redis.call('HDEL', task, unpack(END_FIELDS))
  local have = redis.call('HMGET', task, 'retention_ms', 'notify', 'attempt', 'waiter')
  local notify, waiter = have[2] or '', have[4] or ''
  if notify ~= '' or waiter ~= '' then
    redis.call('XADD', outbox, '*', 'task', task_id, 'attempt', have[3], 'state', state, 'notify', notify,
      'waiter', waiter)
  end
  local retention = tonumber(have[1] or '0')
  if retention > 0 then
    redis.call('PEXPIRE', task, retention)
    redis.call('PEXPIRE', events, retention)
    redis.call('PEXPIRE', control, retention)
  end
end

-- attempt: the fence. A write is accepted from the attempt that owns the task and knows its token.

-- Returns the current state when (attempt, token) own the task, else nil and an error name.
local function owned_state(task, attempt, token)
  local have = redis.call('HMGET', task, 'state', 'attempt', 'token_hash')
  if not have[1] then
    return nil, 'TASK_UNKNOWN'
  end
  if have[2] ~= attempt or have[3] ~= redis.sha1hex(token) then
    return nil, 'STALE_ATTEMPT'
  end
  return have[1], nil
end

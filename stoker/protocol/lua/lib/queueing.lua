-- queueing: put a task that an engine had back into the queue, or end it when it may not go on.

-- Returns the new state. `spend` is '1' when the attempt counts against max_attempts.
local function put_back(k, task_id, attempt, reason, spend)
  local have = redis.call('HMGET', k.task, 'state', 'cancel', 'spent', 'max_attempts', 'score', 'worker', 'counted')
  local history = redis.call('HGET', k.task, 'losses') or ''
  redis.call('HDEL', k.engine_tasks, task_id)
  if spend == '1' then
    history = history .. '[attempt ' .. attempt .. ' on ' .. (have[6] or '?') .. '] ' .. reason .. ' '
    redis.call('HSET', k.task, 'losses', history)
    have[3] = redis.call('HINCRBY', k.task, 'spent', 1)
  end
  local new = '2'
  if have[2] and have[2] ~= '' then
    new = '11'
  elseif tonumber(have[3]) >= tonumber(have[4]) then
    new = '10'
  end
  local problem = move(k.task, k.events, have[1], new, attempt, reason)
  if problem then
    return nil, problem
  end
  if new == '2' then
    redis.call('HSET', k.task, 'engine', '', 'worker', '', 'token_hash', '', 'output', 'null')
    count_in(k.queued, have[7])
    redis.call('ZADD', k.pending, have[5], task_id)
    redis.call('XADD', k.wake, '*', 'k', 'requeued', 'task', task_id)
  else
    if new == '10' then
      redis.call('HSET', k.task, 'error_code', 'worker_lost', 'error',
        'The worker was lost ' .. have[3] .. ' times while it ran this task: ' .. history)
    end
    settle(k.task, k.events, k.control, k.outbox, task_id, new)
    redis.call('XADD', k.wake, '*', 'k', 'finished', 'task', task_id, 's', new, 'o', '{}')
  end
  return new, nil
end

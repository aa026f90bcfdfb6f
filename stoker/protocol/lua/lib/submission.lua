-- submission: store a task and queue it, once by task id and by idempotency key.

-- Returns a result for the caller when the task, or one with this idempotency key, was accepted before.
local function known_task(k, task_id, body_hash)
  if redis.call('EXISTS', k.task) == 1 then
    return {'OK', task_id}
  end
  if body_hash == '' then
    return nil
  end
  local known = redis.call('HMGET', k.idempotency, 'task', 'body')
  if known[1] then
    return known[2] == body_hash and {'OK', known[1]} or {'IDEMPOTENCY_MISMATCH', known[1]}
  end
  return nil
end

-- Returns a refusal when there is no room for one more task of its API key, or of anybody. O(1).
local function no_room(k, fields)
  if fields.queue_limit == 0 and fields.key_limit == 0 then
    return nil
  end
  local waiting = redis.call('ZCARD', k.pending) + redis.call('ZCARD', k.delayed)
  if fields.key_limit > 0 then
    -- No key has more than wait in all: a wrong count, which an engine could make, shuts nobody out for ever.
    local own = math.min(waiting, tonumber(redis.call('HGET', k.queued, fields.counted) or '0'))
    if own >= fields.key_limit then
      return {'KEY_QUEUE_FULL', text(own)}
    end
  end
  if fields.queue_limit > 0 and waiting >= fields.queue_limit then
    return {'QUEUE_FULL', text(waiting)}
  end
  return nil
end

-- Everything but the queue. `from`: since when it waits.
local function store_task(k, task_id, request, spec, owner, fields, body_hash, now, from)
  if body_hash ~= '' then
    redis.call('HSET', k.idempotency, 'task', task_id, 'body', body_hash)
    redis.call('PEXPIRE', k.idempotency, fields.idempotency_ms)
  end
  local at = text(now)
  redis.call('HSET', k.task, 'request', request, 'state', '2', 'attempt', '0', 'spent', '0',
    'max_attempts', fields.max_attempts, 'retention_ms', text(fields.retention_ms), 'group', fields.group,
    'retry_delay_ms', text(fields.retry_delay_ms), 'notify', fields.notify, 'created', at, 'updated', at,
    'score', text(from - fields.priority * 1e13),
    'history', '0,1,' .. at .. ';0,2,' .. at .. ';')
  redis.call('HSET', k.control, 'spec', spec, 'owner', owner, 'created', text(from))
  if fields.waiter ~= '' then
    redis.call('HSET', k.task, 'waiter', fields.waiter)
  end
  if fields.counted ~= '' then
    redis.call('HSET', k.task, 'counted', fields.counted)
    count_in(k.queued, fields.counted)
  end
  redis.call('ZADD', k.owner_tasks, at, task_id)
  redis.call('SADD', k.owners, cjson.decode(owner).user_id)
end

local function queue_task(k, task_id, request, spec, owner, fields, body_hash)
  local now = now_ms()
  local from = math.max(now, fields.run_at_ms)
  store_task(k, task_id, request, spec, owner, fields, body_hash, now, from)
  if from > now then
    redis.call('HSET', k.task, 'due', text(from))
    redis.call('ZADD', k.delayed, text(from), task_id)
    redis.call('XADD', k.wake, '*', 'k', 'delayed', 'task', task_id, 'due', text(from))
  else
    redis.call('ZADD', k.pending, text(from - fields.priority * 1e13), task_id)
    redis.call('XADD', k.wake, '*', 'k', 'submitted', 'task', task_id, 'spec', spec, 'at', text(now))
  end
  return {'OK', task_id}
end

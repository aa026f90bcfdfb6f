-- queueing: what becomes of a task whose attempt ended and the task did not: it waits again, or fails with the reasons.

-- So often may a task end its app's process or its machine; then it is taken for the cause.
local POISON = 3
local LONGEST_MS = 300000
local LOSS_BYTES = 1000

-- A cut within a character (0x80 to 0xBF go on with one) would make a text that nobody can decode.
local function cut(words, most)
  local after = string.byte(words, most + 1)
  while most > 0 and after and after >= 0x80 and after <= 0xBF do
    most = most - 1
    after = string.byte(words, most + 1)
  end
  return string.sub(words, 1, most)
end

local function count_loss(k, attempt, loss)
  local have = redis.call('HMGET', k.task, 'losses', 'worker')
  redis.call('HSET', k.task, 'losses', (have[1] or '') .. '[attempt ' .. attempt .. ' on ' .. (have[2] or '?') .. '] '
    .. cut(loss.reason, LOSS_BYTES) .. ' ')
  redis.call('HINCRBY', k.task, 'spent', 1)
  if loss.kills then
    redis.call('HINCRBY', k.task, 'kills', 1)
  end
end

-- The pause grows twofold with each attempt that was spent.
local function pause_ms(k, spent)
  local first = tonumber(redis.call('HGET', k.task, 'retry_delay_ms') or '0')
  return spent < 1 and 0 or math.min(first * 2 ^ (spent - 1), math.max(first, LONGEST_MS))
end

-- What only the scheduler may know of a task is not touched here: engines call this too.
local function wait_or_queue(k, task_id, delay_ms, why)
  redis.call('HSET', k.task, 'engine', '', 'worker', '', 'token_hash', '', 'output', 'null')
  count_in(k.queued, redis.call('HGET', k.task, 'counted'))
  if delay_ms < 1 then
    redis.call('ZADD', k.pending, redis.call('HGET', k.task, 'score'), task_id)
    redis.call('XADD', k.wake, '*', 'k', 'requeued', 'task', task_id, 'attempt', redis.call('HGET', k.task, 'attempt'))
    return
  end
  local due = text(now_ms() + delay_ms)
  redis.call('HSET', k.task, 'due', due, 'due_why', why)
  redis.call('ZADD', k.delayed, due, task_id)
  redis.call('XADD', k.wake, '*', 'k', 'delayed', 'task', task_id, 'attempt', redis.call('HGET', k.task, 'attempt'),
    'due', due, 'o', k.measures or '{}')
end

local function fail_spent(k, spent, kills, loss)
  local losses = redis.call('HGET', k.task, 'losses')
  local code, error = loss.code, loss.single
  if kills >= POISON then
    code, error = 'poison', 'The task ended its app\'s process or its worker ' .. text(kills)
      .. ' times and is not run again: ' .. losses
  elseif spent > 1 then
    error = 'The task failed in each of its ' .. text(spent) .. ' attempts: ' .. losses
  end
  redis.call('HSET', k.task, 'error_code', code, 'error', error)
end

-- Returns the new state, or nil and an error name.
-- `loss`: nil when no attempt is spent, else {reason, code, single = the error of a task with one attempt, kills,
-- last = it is not tried again}.
local function put_back(k, task_id, attempt, reason, loss, delay_of)
  redis.call('HDEL', k.engine_tasks, task_id)
  if loss then
    count_loss(k, attempt, loss)
  end
  local have = redis.call('HMGET', k.task, 'state', 'cancel', 'spent', 'max_attempts', 'kills')
  local spent, kills = tonumber(have[3]), tonumber(have[5] or '0')
  local new = '2'
  if have[2] and have[2] ~= '' then
    new = '11'
  elseif loss and (loss.last or spent >= tonumber(have[4]) or kills >= POISON) then
    new = '10'
  end
  local problem = move(k.task, k.events, have[1], new, attempt, reason)
  if problem then
    return nil, problem
  end
  if new == '2' then
    wait_or_queue(k, task_id, delay_of(spent), reason)
    return new, nil
  end
  if new == '10' then
    fail_spent(k, spent, kills, loss)
  end
  settle(k.task, k.events, k.control, k.outbox, task_id, new)
  redis.call('XADD', k.wake, '*', 'k', 'finished', 'task', task_id, 's', new, 'o', k.measures or '{}')
  return new, nil
end

-- common: server time, the announcement of an event, the one handler for entering a state.
-- `ALLOWED` (the table of stoker/core/states.py) is put before this text at load.

local function now_ms()
  local t = redis.call('TIME')
  return t[1] * 1000 + math.floor(t[2] / 1000)
end

local function text(number)
  return string.format('%.0f', number)
end

-- Tell the gateways that a task has a new event, and whether it is its last; only a hint, so a lost one does no harm.
local function announce(task, id, ended)
  local prefix, task_id = string.match(task, '^(.-):task:([^:]+)$')
  redis.call('PUBLISH', prefix .. ':events', task_id .. ' ' .. id .. (ended and ' ended' or ''))
end

-- The same of a document.
local function announce_document(document, revision)
  local prefix, kind, id = string.match(document, '^(.-):document:([^:]+):([^:]+)$')
  redis.call('PUBLISH', prefix .. ':events', kind .. ':' .. id .. ' ' .. revision)
end

local function add_event(task, events, ended, ...)
  local id = redis.call('XADD', events, '*', ...)
  redis.call('HSET', task, 'cursor', id)
  announce(task, id, ended)
  return id
end

-- Enter a state: table check, time, history, event. Returns an error name, or nil.
local function move(task, events, old, new, attempt, detail)
  if not (ALLOWED[old] and ALLOWED[old][new]) then
    return 'ILLEGAL_MOVE'
  end
  local now = text(now_ms())
  local history = redis.call('HGET', task, 'history') or ''
  redis.call('HSET', task, 'state', new, 'updated', now, 'detail', detail,
    'history', history .. attempt .. ',' .. new .. ',' .. now .. ';')
  add_event(task, events, next(ALLOWED[new]) == nil, 'k', 'state', 's', new, 'a', attempt)
  return nil
end

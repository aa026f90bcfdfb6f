-- leadership: a decision is accepted from the scheduler whose epoch is the current one.

local function leads(leader, epoch)
  local now = redis.call('GET', leader)
  return now ~= false and string.match(now, '^(%d+):') == epoch
end

-- removal: a removal that is repeated finds nothing, and is told what the first one was told: that left a mark.

local function removed_before(mark)
  return redis.call('EXISTS', mark) == 1
end

-- For longer than a lost reply is waited for; a later removal of the same has a mark of its own.
local function mark_removal(mark)
  redis.call('SET', mark, '1', 'PX', 60000)
end

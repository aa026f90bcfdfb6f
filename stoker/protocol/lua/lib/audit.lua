-- audit: record a change in the step that makes it. '' = it is not recorded.

local function record_change(audit, change, kept)
  if change ~= '' then
    redis.call('XADD', audit, 'MAXLEN', '~', kept, '*', 'change', change)
  end
end

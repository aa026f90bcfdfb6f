-- waiting: how many tasks of an API key wait. Only tasks that were accepted under a limit are counted (field `counted`).

local function count_in(queued, whose)
  if whose and whose ~= '' then
    redis.call('HINCRBY', queued, whose, 1)
  end
end

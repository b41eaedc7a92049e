-- Keep a result for Celery's result backend, and wake who waits for it on this server.
local function keep(key, ttl, value)
  if tonumber(ttl) > 0 then
    redis.call('SET', key, value, 'EX', ttl)
  else
    redis.call('SET', key, value)
  end
  if redis.call('PUBSUB', 'NUMSUB', key)[2] > 0 then redis.call('PUBLISH', key, value) end
end

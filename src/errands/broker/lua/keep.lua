-- keep(context, key, seconds, value): keep a result for Celery's result backend; 0 seconds: for ever.
local function keep(context, key, seconds, value)
  if tonumber(seconds) > 0 then
    redis.call('SET', key, value, 'EX', seconds)
  else
    redis.call('SET', key, value)
  end
  local kept = context.results or {}
  context.results = kept
  kept[#kept + 1], kept[#kept + 2] = key, value
end

-- wake_who_waits(context): publish what was kept to those who wait for it on this server. One question for all of it.
local function wake_who_waits(context)
  local kept, keys = context.results or {}, {}
  for n = 1, #kept, 2 do keys[#keys + 1] = kept[n] end
  local listeners = #keys > 0 and redis.call('PUBSUB', 'NUMSUB', unpack(keys)) or {}
  for n = 2, #listeners, 2 do
    if listeners[n] > 0 then redis.call('PUBLISH', kept[n - 1], kept[n]) end
  end
end

-- The life that nearly every run has: it starts for the first time, and the attempt that has it succeeds. What is done
-- is what `record` does for it, with less asked. Needs write_event.lua and keep.lua.
--
-- ordinary(context, starts, id, event, seconds, at, key, keep_seconds, result)
--
-- starts   it starts; else it has succeeded
-- event    as JSON
-- seconds  to keep the hash of the run
-- at       the attempt that speaks: see attempt.lua
-- key      of the result ('' or nothing: none), seconds to keep it, the result
-- Reply    whether it is an ordinary life; if not, nothing was done
local HOUR = 3600

local function ordinary(context, starts, id, event, seconds, at, key, keep_seconds, result)
  local run = context.prefix .. 'run:' .. id
  local live = redis.call('HMGET', run, 'state', 'at', 'slots', 'batch', 'unique', 'kept')
  if live[3] or live[4] or live[5] then return false end
  if starts then
    local lives_on = math.abs(context.now - tonumber(live[6] or '0')) <= HOUR and tonumber(seconds) <= 169 * HOUR
    if live[1] ~= 'queued' or live[2] or not lives_on then return false end
    write_event(context, event, 1)
    redis.call('HSET', run, 'state', 'running', 'at', at, 'taken', '1 ' .. context.now, 'started', event)
    return true
  end
  if live[1] ~= 'running' or live[2] ~= at or context.lease == '' then return false end
  write_event(context, event, string.match(at, '^%S+ (%S+)'))
  redis.call('HSET', run, 'state', 'succeeded', 'ended', event)
  redis.call('EXPIRE', run, seconds)
  if key and key ~= '' then keep(context, key, keep_seconds, result) end
  return true
end

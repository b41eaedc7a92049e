-- put(prefix, queue, lane, raw, due, member): one message into its queue. Needs fair.lua; concatenated in front
-- of scripts.
--
-- prefix  of all keys
-- queue   where it waits
-- lane    its level (high, normal or low); where tenants take turns, then \1 and its tenant
-- raw     the message, as kombu's JSON envelope
-- due     when it may start: 0 at once, above it ms since 1970 by the server's clock, below it ms from now
-- member  the run's id, by which a delayed message is found again; '' when it has none
--
-- Rule for members: a delayed message is kept under its run's id. Where another message of that run is delayed
-- already, the second is kept under "id#2", and so on to "id#9"; the same bytes again stay as they are, so a
-- sender may repeat a put whose reply was lost. Past the ninth, and without an id, the member is a digest.

-- Into its queue, at once. What was delayed says so ("d"): it is due, whatever its headers and clocks say.
local function enter(q, lane, raw, was_delayed)
  local cut = string.find(lane, '\1', 1, true)
  if cut then
    line_up(q .. ':' .. string.sub(lane, 1, cut - 1), raw, string.sub(lane, cut + 1))
  elseif was_delayed then
    redis.call('XADD', q .. ':' .. lane, '*', 'm', raw, 'd', '1')
  else
    redis.call('XADD', q .. ':' .. lane, '*', 'm', raw)
  end
end

local function put(prefix, queue, lane, raw, due, member)
  local q = prefix .. 'q:' .. queue
  if due ~= 0 then
    local time = redis.call('TIME')
    -- Rounded up, so that nothing is early by a part of a millisecond.
    local now = time[1] * 1000 + math.ceil(time[2] / 1000)
    if due < 0 then due = now - due end
    if due <= now then due = 0 end
  end
  if due == 0 then
    enter(q, lane, raw)
    return
  end
  local messages, value = q .. ':delayed:messages', lane .. '\0' .. raw
  local name = nil
  if member ~= '' then
    for n = 1, 9 do
      local candidate = n == 1 and member or member .. '#' .. n
      local present = redis.call('HGET', messages, candidate)
      if not present or present == value then
        name = candidate
        break
      end
    end
  end
  name = name or '#' .. redis.sha1hex(value)
  redis.call('HSET', messages, name, value)
  redis.call('ZADD', q .. ':delayed', 'NX', due, name)
end

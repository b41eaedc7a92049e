-- put(prefix, queue, level, raw, due, member): one message into its queue. Concatenated in front of scripts.
--
-- prefix  of all keys               queue, level  where it waits; level is high, normal or low
-- raw     the message, as kombu's JSON envelope
-- due     when it may start, in ms since 1970 by the server's clock; 0 for at once
-- member  the run's id, by which a delayed message is found again; '' when it has none
--
-- Rule for members: a delayed message is kept under its run's id. Where another message of that run is delayed
-- already, the second is kept under "id#2", and so on to "id#9"; the same bytes again replace themselves, so a
-- sender may repeat a put whose reply was lost. Past the ninth, and without an id, the member is a digest.
local function put(prefix, queue, level, raw, due, member)
  local q = prefix .. 'q:' .. queue
  if due <= 0 then
    redis.call('XADD', q .. ':' .. level, '*', 'm', raw)
    return
  end
  local messages, value = q .. ':delayed:messages', level .. '\0' .. raw
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
  redis.call('ZADD', q .. ':delayed', due, name)
end

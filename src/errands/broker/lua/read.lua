-- Acknowledge what is done, then read what waits: by level, the front stream first, the queues in turn.
-- Needs moves.lua.
--
-- ARGV  1 prefix of keys    2 name of the reader    3 most messages
--       4 levels in the order to read them, with commas
--       5 ms that a lease lasts: nobody is given anything who does not hold one
--       6 number of queues  7… name of each, and the ms after which it expires unused (0: never)
--       then for acknowledge()
-- Reply {streams as XREADGROUP gives them, queues that are paused, what went wrong}
local prefix, reader, left = ARGV[1], ARGV[2], tonumber(ARGV[3])
local count = tonumber(ARGV[6])
acknowledge(ARGV, 7 + 2 * count)
if redis.call('PTTL', prefix .. 'lease:' .. reader) < ARGV[5] / 2 then hold(prefix, reader, ARGV[5]) end

local paused, problems, queues, names, refusal = {}, {}, {}, {}, nil
for n = 1, count do names[n] = ARGV[5 + 2 * n] end
local states = redis.call('SMISMEMBER', prefix .. 'paused', unpack(names))
for n = 1, count do
  if states[n] == 1 then
    paused[#paused + 1] = names[n]
  else
    queues[#queues + 1] = {prefix .. 'q:' .. names[n] .. ':', ARGV[6 + 2 * n]}
  end
end

local function read(key, expires)
  local found = redis.pcall('XREADGROUP', 'GROUP', GROUP, reader, 'COUNT', left, 'STREAMS', key, '>')
  if found and found.err and string.find(found.err, 'NOGROUP', 1, true) then
    found = redis.pcall('XGROUP', 'CREATE', key, GROUP, '0', 'MKSTREAM')
    if not found.err then
      found = redis.pcall('XREADGROUP', 'GROUP', GROUP, reader, 'COUNT', left, 'STREAMS', key, '>')
    end
  end
  if expires ~= '0' then redis.call('PEXPIRE', key, expires) end
  if not found then return nil end
  if found.err then
    -- A full server makes no stream for a queue that nobody has read yet.
    if string.find(found.err, 'WRONGTYPE', 1, true) or string.find(found.err, 'OOM', 1, true) then
      problems[#problems + 1] = key .. ': ' .. found.err
    else
      refusal = found.err
    end
    return nil
  end
  left = left - #found[1][2]
  return found[1]
end

local streams = {}
for level in string.gmatch(ARGV[4], '[^,]+') do
  for _, front in ipairs({':front', ''}) do
    for _, queue in ipairs(queues) do
      if left > 0 then streams[#streams + 1] = read(queue[1] .. level .. front, queue[2]) end
    end
  end
end
if refusal then return redis.error_reply(refusal) end
return {streams, paused, problems}

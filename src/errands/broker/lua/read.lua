-- Acknowledge what is done, then read what waits: by level, the front stream first, then the line of tenants,
-- then the stream; the queues in turn. Needs moves.lua and fair.lua.
--
-- ARGV  1 prefix of keys    2 name of the reader    3 most messages
--       4 most of them while tenants stand in line in any of the queues
--       5 levels in the order to read them, with commas
--       6 ms that a lease lasts: nobody is given anything who does not hold one
--       7 number of queues  8… name of each, and the ms after which it expires unused (0: never)
--       then for acknowledge()
-- Reply {streams as XREADGROUP gives them, queues that are paused, what went wrong, 1 where tenants stand in line,
--        microseconds since 1970 if nothing was found, else 0}
local prefix, reader, left = ARGV[1], ARGV[2], tonumber(ARGV[3])
local count = tonumber(ARGV[7])
acknowledge(ARGV, 8 + 2 * count)
if redis.call('PTTL', prefix .. 'lease:' .. reader) < ARGV[6] / 2 then hold(prefix, reader, ARGV[6]) end

local paused, problems, queues, names, refusal = {}, {}, {}, {}, nil
for n = 1, count do names[n] = ARGV[6 + 2 * n] end
local states = redis.call('SMISMEMBER', prefix .. 'paused', unpack(names))
for n = 1, count do
  if states[n] == 1 then
    paused[#paused + 1] = names[n]
  else
    queues[#queues + 1] = {prefix .. 'q:' .. names[n] .. ':', ARGV[7 + 2 * n]}
  end
end

local levels, lines = {}, {}
for level in string.gmatch(ARGV[5], '[^,]+') do
  levels[#levels + 1] = level
  for _, queue in ipairs(queues) do lines[#lines + 1] = queue[1] .. level .. ':fair:turns' end
end
local fair = #lines > 0 and redis.call('EXISTS', unpack(lines)) > 0
if fair then left = math.min(left, tonumber(ARGV[4])) end

local function read(key, expires, most)
  local found = redis.pcall('XREADGROUP', 'GROUP', GROUP, reader, 'COUNT', most, 'STREAMS', key, '>')
  if found and found.err and string.find(found.err, 'NOGROUP', 1, true) then
    found = redis.pcall('XGROUP', 'CREATE', key, GROUP, '0', 'MKSTREAM')
    if not found.err then
      found = redis.pcall('XREADGROUP', 'GROUP', GROUP, reader, 'COUNT', most, 'STREAMS', key, '>')
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

-- Tenants take turns, and all messages without one are one tenant: those in the stream.
local function read_in_turns(base, expires)
  local plain, line, rows = next_turns(base, left)
  local before = left
  if plain > 0 then streams[#streams + 1] = read(base, expires, plain) end
  local taken = before - left
  if taken > 0 then took_turns(base, taken) end
  if taken < plain then line = math.min(left, #rows / 2) end
  if line > 0 then
    step_forward(base, rows, line)
    streams[#streams + 1] = read(base .. ':front', expires, line)
  end
  if expires ~= '0' then
    for _, ending in ipairs({'', ':turns', ':tenants', ':clock'}) do
      redis.call('PEXPIRE', base .. ':fair' .. ending, expires)
    end
  end
end

for _, level in ipairs(levels) do
  for _, queue in ipairs(queues) do
    if left > 0 then streams[#streams + 1] = read(queue[1] .. level .. ':front', queue[2], left) end
  end
  for _, queue in ipairs(queues) do
    local base = queue[1] .. level
    if fair and left > 0 and redis.call('EXISTS', base .. ':fair:turns') == 1 then
      read_in_turns(base, queue[2])
    end
    if left > 0 then streams[#streams + 1] = read(base, queue[2], left) end
  end
end
if refusal then return redis.error_reply(refusal) end
local now = #streams == 0 and redis.call('TIME') or {0, 0}
return {streams, paused, problems, fair and 1 or 0, now[1] * 1000000 + now[2]}

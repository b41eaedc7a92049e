-- What moves entries between the streams of a queue. Concatenated in front of scripts, like put.lua.
local GROUP = 'workers'

local function field(fields, name)
  for i = 1, #fields, 2 do
    if fields[i] == name then return fields[i + 1] end
  end
  return nil
end

-- The key that all of the queue's keys begin with, and the front stream of the same level.
local function place_of(stream)
  local plain = string.match(stream, '^(.*):front$') or stream
  return string.match(plain, '^(.*):%a+$'), plain .. ':front'
end

-- The lease of a worker, by the server's clock. A full server lets a lease be renewed, and makes no new one:
-- nor does it let anybody sweep then.
local function hold(prefix, worker, ms)
  local key = prefix .. 'lease:' .. worker
  if redis.call('PEXPIRE', key, ms) == 0 then redis.pcall('SET', key, 1, 'PX', ms) end
end

local function drop(stream, ids)
  redis.call('XACK', stream, GROUP, unpack(ids))
  redis.call('XDEL', stream, unpack(ids))
end

-- Arguments from `i` on: stream, number of ids, the ids; again and again until the end.
local function acknowledge(args, i)
  while i <= #args do
    local ids = {}
    for n = 1, tonumber(args[i + 1]) do ids[n] = args[i + 1 + n] end
    drop(args[i], ids)
    i = i + 2 + #ids
  end
end

-- Into the dead letters of its queue, whole, with the reason and how often it was rescued.
local function bury(stream, id, fields, reason, rescued, keep)
  local base = place_of(stream)
  local time = redis.call('TIME')
  local raw = field(fields, 'm') or table.concat(fields, ' ')
  redis.call('XADD', base .. ':dead', 'MAXLEN', '~', keep, '*', 'm', raw, 'reason', reason,
    'n', rescued, 'at', time[1] .. '.' .. string.sub('000000' .. time[2], -6))
  drop(stream, {id})
end

-- To the front of its level. `rescued` is 1 where its worker died, else 0. An entry that is not there any
-- more was moved before: its number is only taken off the list.
local function give_back(stream, id, rescued, most, keep)
  local row = redis.call('XRANGE', stream, id, id)[1]
  if not row then
    redis.call('XACK', stream, GROUP, id)
    return
  end
  local raw = field(row[2], 'm')
  local n = tonumber(field(row[2], 'n') or '0') + rescued
  if not raw then
    bury(stream, id, row[2], 'the entry in the queue is no message: it has no field "m"', n, keep)
  elseif n > most then
    bury(stream, id, row[2], 'rescued ' .. n .. ' times from workers that died', n, keep)
  else
    local _, front = place_of(stream)
    local fields = {'m', raw, 'r', '1'}
    if n > 0 then
      fields[5], fields[6] = 'n', n
    end
    redis.call('XADD', front, '*', unpack(fields))
    drop(stream, {id})
  end
end

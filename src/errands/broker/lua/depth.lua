-- How deep queues are. Needs moves.lua.
--
-- ARGV  1 prefix of keys   2… the queues
-- Reply for each queue: waiting, ms that the oldest has waited (-1: none waits), delayed, held, dead, and how many
-- of those waiting wait for a limit
local prefix, replies = ARGV[1], {}
local time = redis.call('TIME')
local now = time[1] * 1000 + math.floor(time[2] / 1000)

local function look_at(stream)
  local length = redis.pcall('XLEN', stream)
  if type(length) ~= 'number' or length == 0 then return 0, 0, nil end
  local pending, last = 0, '0-0'
  local groups = redis.call('XINFO', 'GROUPS', stream)
  for _, group in ipairs(groups) do
    if field(group, 'name') == GROUP then
      pending, last = field(group, 'pending'), field(group, 'last-delivered-id')
    end
  end
  local first = redis.call('XRANGE', stream, '(' .. last, '+', 'COUNT', 1)[1]
  return length - pending, pending, first and tonumber(string.match(first[1], '^%d+')) or nil
end

for i = 2, #ARGV do
  local q = prefix .. 'q:' .. ARGV[i]
  local waiting, held, oldest = 0, 0, nil
  for _, level in ipairs({':high', ':normal', ':low'}) do
    for _, front in ipairs({'', ':front'}) do
      local w, h, first = look_at(q .. level .. front)
      waiting, held = waiting + math.max(0, w), held + h
      if first and (not oldest or first < oldest) then oldest = first end
    end
    local line = q .. level .. ':fair'
    waiting = waiting + redis.call('ZCARD', line .. ':turns')
    local first = redis.call('XRANGE', line, '-', '+', 'COUNT', 1)[1]
    local came = first and tonumber(string.match(first[1], '^%d+'))
    if came and (not oldest or came < oldest) then oldest = came end
  end
  local limited = redis.call('ZCARD', q .. ':limited')
  if limited > 0 then
    local sent = tonumber(redis.call('ZRANGE', q .. ':limited', 0, 0, 'WITHSCORES')[2])
    if not oldest or sent < oldest then oldest = sent end
  end
  local n = #replies
  replies[n + 1] = waiting + limited
  replies[n + 2] = oldest and math.max(0, now - oldest) or -1
  replies[n + 3] = redis.call('ZCARD', q .. ':delayed')
  replies[n + 4] = held
  replies[n + 5] = redis.call('XLEN', q .. ':dead')
  replies[n + 6] = limited
end
return replies

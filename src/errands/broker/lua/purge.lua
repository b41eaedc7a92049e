-- Throw away messages that nobody was given yet, delayed ones, and those that wait for a limit. Needs moves.lua and
-- waiting.lua.
--
-- ARGV  1 prefix of keys   2 queue   3 most messages in one call
-- Reply how many; when it is the most or more, there may be more. Lines of tenants go as a whole.
local q, left, gone = ARGV[1] .. 'q:' .. ARGV[2], tonumber(ARGV[3]), 0

local function purge(stream)
  local groups, last = redis.pcall('XINFO', 'GROUPS', stream), '0-0'
  if groups.err then return end
  for _, group in ipairs(groups) do
    if field(group, 'name') == GROUP then last = field(group, 'last-delivered-id') end
  end
  while left > 0 do
    local rows = redis.call('XRANGE', stream, '(' .. last, '+', 'COUNT', math.min(500, left))
    if #rows == 0 then return end
    local ids = {}
    for n, row in ipairs(rows) do ids[n] = row[1] end
    redis.call('XDEL', stream, unpack(ids))
    left, gone = left - #ids, gone + #ids
  end
end

for _, level in ipairs({':high', ':normal', ':low'}) do
  purge(q .. level)
  purge(q .. level .. ':front')
  local line = q .. level .. ':fair'
  gone = gone + redis.call('ZCARD', line .. ':turns')
  redis.call('UNLINK', line, line .. ':turns', line .. ':tenants', line .. ':clock')
end
while left > 0 do
  local members = redis.call('ZRANGE', q .. ':delayed', 0, math.min(500, left) - 1)
  if #members == 0 then break end
  redis.call('ZREM', q .. ':delayed', unpack(members))
  redis.call('HDEL', q .. ':delayed:messages', unpack(members))
  left, gone = left - #members, gone + #members
end
local context = {prefix = ARGV[1]}
while left > 0 do
  local runs = redis.call('ZRANGE', q .. ':limited', 0, math.min(500, left) - 1)
  if #runs == 0 then break end
  for _, run in ipairs(runs) do
    if leave(context, ARGV[2], run) == 0 then redis.call('ZREM', q .. ':limited', run) end
  end
  left, gone = left - #runs, gone + #runs
end
return gone

-- One round of a worker's upkeep, over all queues that it reads. Needs fair.lua, put.lua, moves.lua,
-- adopt.lua and waiting.lua.
--
-- ARGV  1 prefix of keys   2 name of the worker     3 ms to renew its lease for; 0: not now
--       4 '1' to sweep: look for workers without a lease, for dead letters, for what this worker holds
--       5 most rescues     6 most dead letters      7 most messages moved of a kind in one call
--       8 ms that a lease lasts                     9 ms between two sweeps that count as an interruption
--       10 '1' to adopt stock lists                 11 what their names begin with   12 their separator
--       13… the queues
-- Reply {ms until the next delayed message is due, -1 for none,
--        1 when there is more to move at once,
--        stream and number of entries that the server says this worker holds, for each,
--        queue, id, message and reason of each dead letter that is to be told}
local prefix, worker, limit = ARGV[1], ARGV[2], tonumber(ARGV[7])
local most, keep = tonumber(ARGV[5]), ARGV[6]
local time = redis.call('TIME')
local now = time[1] * 1000 + math.floor(time[2] / 1000)
local next_due, more, held, untold = -1, 0, {}, {}

if ARGV[3] ~= '0' then hold(prefix, worker, ARGV[3]) end

-- Whoever was frozen, restarted or alone must not be taken for dead: leases are believed to have run out only
-- after a whole lease of sweeps without an interruption. A clock set back is an interruption as well.
local function may_rescue()
  local marks = redis.call('HMGET', prefix .. 'sweep', 'last', 'since')
  local last, since = tonumber(marks[1]), tonumber(marks[2])
  if not last or not since or now - last > tonumber(ARGV[9]) or now < last then since = now end
  redis.call('HSET', prefix .. 'sweep', 'last', now, 'since', since)
  return now - since >= tonumber(ARGV[8])
end

local function move_due(queue)
  local q = prefix .. 'q:' .. queue
  local due = redis.call('ZRANGEBYSCORE', q .. ':delayed', '-inf', now, 'LIMIT', 0, limit)
  for _, member in ipairs(due) do
    local value = redis.call('HGET', q .. ':delayed:messages', member)
    if value then
      local cut = string.find(value, '\0', 1, true)
      enter(q, string.sub(value, 1, cut - 1), string.sub(value, cut + 1), true)
      redis.call('HDEL', q .. ':delayed:messages', member)
    end
    redis.call('ZREM', q .. ':delayed', member)
  end
  if #due == limit then more = 1 end
  local first = redis.call('ZRANGE', q .. ':delayed', 0, 0, 'WITHSCORES')
  if first[2] then
    local wait = math.max(0, tonumber(first[2]) - now)
    if next_due < 0 or wait < next_due then next_due = wait end
  end
end

local alive = {[worker] = true}
local function lives(name)
  if alive[name] == nil then
    alive[name] = redis.call('EXISTS', prefix .. 'lease:' .. name) == 1
  end
  return alive[name]
end

-- What the dead hold goes to the front; a consumer that holds nothing and is gone is forgotten.
local function look_after(stream, rescue, left)
  local consumers = redis.pcall('XINFO', 'CONSUMERS', stream, GROUP)
  if consumers.err then return left end
  for _, consumer in ipairs(consumers) do
    local name, pending = field(consumer, 'name'), field(consumer, 'pending')
    if name == worker then
      if pending > 0 then
        held[#held + 1] = stream
        held[#held + 1] = pending
      end
    elseif rescue and not lives(name) then
      local entries = {}
      if pending > 0 and left > 0 then entries = redis.call('XPENDING', stream, GROUP, '-', '+', left, name) end
      for _, entry in ipairs(entries) do give_back(stream, entry[1], 1, most, keep) end
      left = left - #entries
      if #entries == pending then
        redis.call('XGROUP', 'DELCONSUMER', stream, GROUP, name)
      else
        more = 1
      end
    end
  end
  return left
end

-- Dead letters that nobody has told yet, and those that somebody took a minute ago and did not tell.
local function take_untold(queue)
  local key = prefix .. 'q:' .. queue .. ':dead'
  if redis.call('EXISTS', key) == 0 then return end
  local command = {'XREADGROUP', 'GROUP', 'tellers', worker, 'COUNT', 50, 'STREAMS', key, '>'}
  local found = redis.pcall(unpack(command))
  if found and found.err then
    redis.call('XGROUP', 'CREATE', key, 'tellers', '0')
    found = redis.call(unpack(command))
  end
  local rows = found and found[1][2] or {}
  if #rows == 0 then
    for _, entry in ipairs(redis.call('XPENDING', key, 'tellers', 'IDLE', 60000, '-', '+', 50)) do
      local claimed = redis.call('XCLAIM', key, 'tellers', worker, 60000, entry[1])[1]
      if claimed then
        rows[#rows + 1] = claimed
      else
        redis.call('XACK', key, 'tellers', entry[1])
      end
    end
  end
  for _, row in ipairs(rows) do
    for _, value in ipairs({queue, row[1], field(row[2], 'm') or '', field(row[2], 'reason') or ''}) do
      untold[#untold + 1] = value
    end
  end
end

local sweep = ARGV[4] == '1'
local rescue = sweep and may_rescue()
for i = 13, #ARGV do
  local queue, left = ARGV[i], limit
  move_due(queue)
  if ARGV[10] == '1' and adopt(prefix, queue, ARGV[11] .. queue, ARGV[12], limit, now) then more = 1 end
  if sweep then
    for _, level in ipairs({'high', 'normal', 'low'}) do
      local stream = prefix .. 'q:' .. queue .. ':' .. level
      left = look_after(stream, rescue, left)
      -- The front stream second, and with what this round put there: that has no owner.
      left = look_after(stream .. ':front', rescue, left)
    end
    take_untold(queue)
  end
end
local look_in, limits_more = look_at_limits({prefix = prefix}, 100)
if look_in >= 0 and (next_due < 0 or look_in < next_due) then next_due = look_in end
if limits_more then more = 1 end
return {next_due, more, held, untold}

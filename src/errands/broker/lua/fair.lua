-- Lines: at a level of a queue, the messages of many tenants take turns, so that who asks for much waits for
-- itself alone. Concatenated in front of put.lua and of read.lua.
--
-- A level has a line only while messages wait in it:
--   LEVEL:fair          stream: the messages, in the order they came
--   LEVEL:fair:turns    sorted set: their entries by turn
--   LEVEL:fair:tenants  sorted set: tenants by their last turn; '' stands for all messages without a tenant
--   LEVEL:fair:clock    the turn that was reached
-- A message gets its turn when it comes: one after its tenant's last, and not further back than HEAD_START
-- before the clock. That is self-clocked fair queueing (Golestani, INFOCOM 1994) with the promptness allowance
-- of Demers, Keshav and Shenker (SIGCOMM 1989): a tenant who asks for little goes first.
--
-- Messages go from the line to the level's front stream as a worker asks for them. Where nobody waits they go
-- there at once, some IN_FRONT at most: that wakes idle workers, who block on the streams.
local HEAD_START, IN_FRONT = 10, 16

local function undelivered(stream)
  local length = redis.call('XLEN', stream)
  if length == 0 then return 0 end
  local held = redis.pcall('XPENDING', stream, 'workers')
  return held.err and length or length - held[1]
end

-- What `tenant` must be beyond to have the next turn.
local function last_turn(base, tenant, clock)
  local last = tonumber(redis.call('ZSCORE', base .. ':fair:tenants', tenant))
  return math.max(last or clock - HEAD_START, clock - HEAD_START)
end

local function clock_of(base)
  return tonumber(redis.call('GET', base .. ':fair:clock') or '0')
end

-- line_up(base, raw, tenant): one message of `tenant`; base is the name of the level's stream.
local function line_up(base, raw, tenant)
  local turns = base .. ':fair:turns'
  local waits = redis.call('EXISTS', turns) == 1
  if not waits and undelivered(base .. ':front') < IN_FRONT and undelivered(base) == 0 then
    redis.call('XADD', base .. ':front', '*', 'm', raw)
    return
  end
  local id = redis.call('XADD', base .. ':fair', '*', 'm', raw)
  local turn = last_turn(base, tenant, clock_of(base)) + 1
  redis.call('ZADD', turns, turn, id)
  redis.call('ZADD', base .. ':fair:tenants', turn, tenant)
end

-- next_turns(base, most): whose the next turns are. The number of those without a tenant, and the line's
-- entries and their turns, one after the other; `most` of each at most.
local function next_turns(base, most)
  local rows = redis.call('ZRANGE', base .. ':fair:turns', 0, most - 1, 'WITHSCORES')
  local last = last_turn(base, '', clock_of(base))
  local plain, line = 0, 0
  while plain + line < most and 2 * line < #rows do
    if last + plain + 1 <= tonumber(rows[2 * line + 2]) then plain = plain + 1 else line = line + 1 end
  end
  return plain, line, rows
end

-- took_turns(base, n): so many messages without a tenant were taken.
local function took_turns(base, n)
  redis.call('ZADD', base .. ':fair:tenants', last_turn(base, '', clock_of(base)) + n, '')
end

-- step_forward(base, rows, n): the first n of `rows` go to the front stream.
local function step_forward(base, rows, n)
  local ids, clock = {}, math.max(clock_of(base), tonumber(rows[2 * n]))
  for i = 1, n do ids[i] = rows[2 * i - 1] end
  -- First, since a full server lets a script go on that has begun to write.
  redis.call('ZREM', base .. ':fair:turns', unpack(ids))
  for _, id in ipairs(ids) do
    local row = redis.call('XRANGE', base .. ':fair', id, id)[1]
    if row then redis.call('XADD', base .. ':front', '*', 'm', row[2][2]) end
  end
  redis.call('XDEL', base .. ':fair', unpack(ids))
  if redis.call('EXISTS', base .. ':fair:turns') == 0 then
    redis.call('UNLINK', base .. ':fair', base .. ':fair:tenants', base .. ':fair:clock')
    return
  end
  redis.call('SET', base .. ':fair:clock', clock)
  -- Who is as far back as newcomers are is forgotten: more of them than were served, so that all are in time.
  local gone = redis.call(
    'ZRANGEBYSCORE', base .. ':fair:tenants', '-inf', clock - HEAD_START, 'LIMIT', 0, 2 * n + 2)
  if #gone > 0 then redis.call('ZREM', base .. ':fair:tenants', unpack(gone)) end
end

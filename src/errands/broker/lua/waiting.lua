-- Those who wait for a limit. Needs limits.lua.
--
-- limits:waiting              sorted set: bases with somebody waiting, by the µs at which to look at them again
-- limit:<suffix>:lot          sorted set: 'queue\0run' of those who wait for this limit, in their order
-- q:<queue>:limited           sorted set: runs of the queue that wait, by the ms at which they were sent
-- q:<queue>:limited:messages  hash: run → which of its rules it waits for, lane (see put.lua), rules, and the message
--
-- A run that is under several rules waits for them one after the other, in the order that it was given with, and
-- keeps its share of the first ones meanwhile. All have the same order (what holds for fewer runs comes first), so
-- nobody waits in a circle. When it has been granted all of them it goes to the front of its queue.
local GRANTED_US, LOOK_US, LONGEST_US = 30e6, 5e6, 60e6
local MOST_MOVED, MOST_HOLDERS, KEPT_S = 100, 200, 90 * 86400
-- The order in a lot: by level, then by when they were sent; at the end who counts more than the whole limit.
local BAND, BANDS = 1e14, {high = 0, normal = 1, low = 2}
local ASIDE = 3 * BAND
local OVER = {succeeded = true, failed = true, revoked = true, discarded = true, expired = true}

local function place_in(context, queue)
  return context.prefix .. 'q:' .. queue .. ':limited'
end

local function base_of(context, entry, n)
  return context.prefix .. 'limit:' .. entry.waits.rules[n][1]
end

local function entry_of(context, queue, run)
  local value = redis.call('HGET', place_in(context, queue) .. ':messages', run)
  if not value then return nil end
  local at, lane, json, raw = string.match(value, '^(%d+)%z([^%z]*)%z([^%z]*)%z(.*)$')
  return {at = tonumber(at), lane = lane, json = json, raw = raw, waits = cjson.decode(json)}
end


-- When to look again at those who wait for a rule that is full.
local function look_again_at(rule, now)
  local at, free = now + (rule.period == 0 and LOOK_US or LONGEST_US), free_at(rule, now)
  if free then return math.min(at, free) end
  local first = redis.call('ZRANGE', rule.base .. ':grants', 0, 0, 'WITHSCORES')
  return first[2] and math.min(at, tonumber(first[2])) or at
end

local function join_lot(context, queue, run, entry, n, rule, now)
  local lot, member = rule.base .. ':lot', queue .. '\0' .. run
  entry.at = n
  redis.call('HSET', place_in(context, queue) .. ':messages', run,
    table.concat({entry.at, entry.lane, entry.json, entry.raw}, '\0'))
  redis.call('ZADD', place_in(context, queue), entry.waits.since, run)
  redis.call('ZADD', lot, BANDS[string.match(entry.lane, '^%a+')] * BAND + entry.waits.since, member)
  local waiting = context.prefix .. 'limits:waiting'
  if redis.call('ZRANK', lot, member) == 0 then
    redis.call('ZADD', waiting, look_again_at(rule, now), rule.base)
  else
    redis.call('ZADD', waiting, 'NX', now, rule.base)
  end
end

-- Out of the lots and into its queue, in front of what has come since.
local function send(context, queue, run, entry)
  local level = string.match(entry.lane, '^%a+')
  redis.call('XADD', context.prefix .. 'q:' .. queue .. ':' .. level .. ':front', '*', 'm', entry.raw)
  redis.call('HDEL', place_in(context, queue) .. ':messages', run)
  redis.call('ZREM', place_in(context, queue), run)
end

-- Grant the run its rules from the `n`th on, up to the first that is full: there it waits. True when it waits.
local function go_on(context, queue, run, entry, n)
  local now, rules = microseconds(context), {}
  for i, asked in ipairs(entry.waits.rules) do rules[i] = rule_of(context, asked, run) end
  for i = n, #rules do
    local rule = rules[i]
    if redis.call('EXISTS', rule.base .. ':lot') == 1 or not fits(rule, now, true) then
      for before = 1, i - 1 do grant(rules[before], '+inf') end
      join_lot(context, queue, run, entry, i, rule, now)
      return true
    end
    grant(rule, now + GRANTED_US)
  end
  for _, rule in ipairs(rules) do grant(rule, now + GRANTED_US) end
  send(context, queue, run, entry)
  return false
end

-- leave(context, queue, run): take a run out of wherever it waits. Reply 1, or 0 where it does not wait.
local function leave(context, queue, run)
  local entry = entry_of(context, queue, run)
  if not entry then return 0 end
  redis.call('ZREM', base_of(context, entry, entry.at) .. ':lot', queue .. '\0' .. run)
  for n = 1, entry.at - 1 do
    local rule = rule_of(context, entry.waits.rules[n], run)
    if ungrant(rule.base, rule.member) then
      redis.call('ZADD', context.prefix .. 'limits:waiting', 'XX', microseconds(context), rule.base)
    end
  end
  redis.call('HDEL', place_in(context, queue) .. ':messages', run)
  redis.call('ZREM', place_in(context, queue), run)
  return 1
end

-- release(context, base): let those go on who wait there, as many as fit. True when there may be more.
local function release(context, base)
  local now, lot, waiting = microseconds(context), base .. ':lot', context.prefix .. 'limits:waiting'
  for _ = 1, MOST_MOVED do
    local head = redis.call('ZRANGE', lot, 0, 0, 'WITHSCORES')
    if not head[1] then
      redis.call('ZREM', waiting, base)
      return false
    end
    local queue, run = string.match(head[1], '^([^%z]*)%z(.*)$')
    local entry = entry_of(context, queue, run)
    if not entry or base_of(context, entry, entry.at) ~= base then
      redis.call('ZREM', lot, head[1])
    elseif OVER[redis.call('HGET', context.prefix .. 'run:' .. run, 'state') or ''] or
        (entry.waits.expires and now > entry.waits.expires * 1000) then
      -- It will not start, whoever takes it: it needs no share.
      leave(context, queue, run)
      send(context, queue, run, entry)
    else
      local rule = rule_of(context, entry.waits.rules[entry.at], run)
      if fits(rule, now, true) then
        redis.call('ZREM', lot, head[1])
        grant(rule, now + GRANTED_US)
        go_on(context, queue, run, entry, entry.at + 1)
      elseif rule.cost > rule.most and tonumber(head[2]) < ASIDE then
        redis.call('ZADD', lot, ASIDE + entry.waits.since, head[1])
      else
        redis.call('ZADD', waiting, look_again_at(rule, now), base)
        return false
      end
    end
  end
  redis.call('ZADD', waiting, now, base)
  return true
end

-- A slot counts while its run is at work: its worker lives, its hard time limit is not over, and it was not told
-- that it let go. A server's clock that was set back must not make starts count for longer.
local function look_after_those_inside(context, base)
  local now, holders, times = microseconds(context), base .. ':holders', base .. ':times'
  for _, run in ipairs(redis.call('ZRANGEBYSCORE', holders, '-inf', now - LOOK_US, 'LIMIT', 0, MOST_HOLDERS)) do
    local live = redis.call('HMGET', context.prefix .. 'run:' .. run, 'slots', 'at')
    local slots, _, _, lease = live[1] or '', attempt_of(live[2])
    local deadline = tonumber(string.match(slots, '^%d+') or '0')
    local over = deadline > 0 and now > deadline * 1000000
    local lives = lease == '' or redis.call('EXISTS', context.prefix .. 'lease:' .. lease) == 1
    if string.find(slots, '\0' .. base, 1, true) and lives and not over then
      redis.call('ZADD', holders, 'XX', now, run)
    else
      redis.call('ZREM', holders, run)
    end
  end
  for _, bucket in ipairs(redis.call('ZRANGEBYSCORE', times, '(' .. string.format('%.0f', now), '+inf')) do
    redis.call('ZADD', times, 'XX', now, bucket)
  end
end

-- look_at_limits(context, most): let those go on for whom it is time. Reply ms until the next look (-1: nobody
-- waits), and whether there is more to do at once.
local function look_at_limits(context, most)
  local waiting = context.prefix .. 'limits:waiting'
  if redis.call('EXISTS', waiting) == 0 then return -1, false end
  local now = microseconds(context)
  local due = redis.call('ZRANGEBYSCORE', waiting, '-inf', now, 'LIMIT', 0, most)
  local more = #due == most
  for _, base in ipairs(due) do
    look_after_those_inside(context, base)
    if release(context, base) then more = true end
  end
  local first = redis.call('ZRANGE', waiting, 0, 0, 'WITHSCORES')
  return first[2] and math.max(0, math.ceil((tonumber(first[2]) - now) / 1000)) or -1, more
end

-- let_go(context, run, slots): an attempt has ended; others may have the slots that it held.
local function let_go(context, run, slots)
  redis.call('HDEL', context.prefix .. 'run:' .. run, 'slots')
  for base in string.gmatch(slots, '%z([^%z]+)') do
    if redis.call('ZREM', base .. ':holders', run) == 1 then release(context, base) end
  end
end

-- give_up(context, run, asked): the run will not start; what was kept for it is for others.
local function give_up(context, run, asked)
  for _, each in ipairs(asked.rules) do
    local rule = rule_of(context, each, run)
    if ungrant(rule.base, rule.member) then release(context, rule.base) end
  end
end

local function message_in(stream, id)
  local row = redis.call('XRANGE', stream, id, id)[1]
  for n = 1, row and #row[2] or 0, 2 do
    if row[2][n] == 'm' then return row[2][n + 1] end
  end
  return nil
end

-- wait_for(context, run, queue, lane, raw, waits): the run waits for its limits; its message is kept here, and its
-- worker is done with it. A second time changes nothing.
-- raw    the message; '' where it is in an entry of a stream, from which it is moved as it is
-- waits  {rules, hop, attempt = the run's attempts when it was refused, since = ms, expires = ms or nil, told = event,
--        at = {stream, id of the entry} or nil}
-- Reply  'ok'; 'refused', 'stale', 'running': it has ended, goes on elsewhere, was started: the message is void;
--        'missing': there is no such entry, and nothing was done
local function wait_for(context, run, queue, lane, raw, waits)
  local live = context.prefix .. 'run:' .. run
  local known = redis.call('HMGET', live, 'state', 'at')
  local hop, attempt = attempt_of(known[2])
  if OVER[known[1] or ''] then return 'refused' end
  if hop > waits.hop then return 'stale' end
  if known[1] == 'running' then
    if attempt ~= waits.attempt then return 'running' end
    redis.call('HSET', live, 'state', 'retrying') -- its worker has died, or it would not be here
  end
  local entry = entry_of(context, queue, run)
  if entry and entry.waits.hop > waits.hop then return 'stale' end
  local at, told = waits.at, waits.told
  waits.at, waits.told = nil, nil
  if at then
    raw = message_in(at[1], at[2])
    if not raw then return entry and entry.waits.hop == waits.hop and 'ok' or 'missing' end
  end
  if entry then leave(context, queue, run) end
  entry = {lane = string.match(lane, '^[^%z]*'), raw = raw, waits = waits, json = cjson.encode(waits)}
  local stays = go_on(context, queue, run, entry, 1)
  if at then
    redis.call('XACK', at[1], 'workers', at[2])
    redis.call('XDEL', at[1], at[2])
  end
  if not stays then return 'ok' end
  write_event(context, told, attempt)
  redis.call('HSET', live, 'limited', told)
  redis.call('EXPIRE', live, KEPT_S) -- it may wait for long, and must not be forgotten meanwhile
  return 'ok'
end

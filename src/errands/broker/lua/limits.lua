-- What limits give: starts in a time ("rate") and places to be at work at once ("slots").
-- Concatenated in front of scripts; waiting.lua has those who wait.
--
-- A rule is asked for as {suffix, cost, most, period}: suffix is kind, name and key, "rate:mail.send:5"; period is
-- in µs, 0 for slots. What people changed while running counts instead of `most` and `period`:
-- limits             hash: 'kind:name' → 'most period'
-- limit:<suffix>     hash ("base"): 'granted', and of a rate 'used' and how much each bucket of starts counts
--   …:times          sorted set, of a rate: buckets by the µs of their newest start
--   …:holders        sorted set, of slots: runs, by the µs at which it was last seen that they are at work
--   …:grants         sorted set: 'cost:run' of runs that were let go on and have not started yet, by the µs until
--                    which their share is kept for them
--
-- A rate is never exceeded: each start counts for a whole period after it (a sliding log). To bound the log, starts
-- that follow each other within a hundredth of the period share a bucket, which counts until the newest of them is
-- a period old; so at worst a start counts a hundredth of the period too long, and never too short.
-- A grant only keeps others away: a run that has one is counted when it starts, like any other.
local BUCKETS, SLACK_MS = 100, 1000

local function microseconds(context)
  if not context.us then
    local time = redis.call('TIME')
    context.us = tonumber(time[1]) * 1000000 + tonumber(time[2])
  end
  return context.us
end

local function rule_of(context, asked, run)
  local suffix, cost, most, period = asked[1], asked[2], asked[3], asked[4]
  local changed = redis.call('HGET', context.prefix .. 'limits', string.match(suffix, '^%a+:[^:]*'))
  if changed then
    most, period = string.match(changed, '^(%d+) (%d+)$')
    most, period = tonumber(most), tonumber(period)
  end
  return {
    base = context.prefix .. 'limit:' .. suffix, cost = cost, most = most, period = period,
    member = string.format('%.0f', cost) .. ':' .. run,
  }
end

local function grant(rule, until_us)
  if redis.call('ZADD', rule.base .. ':grants', until_us, rule.member) == 1 then
    redis.call('HINCRBY', rule.base, 'granted', rule.cost)
  end
end

local function ungrant(base, member)
  if redis.call('ZREM', base .. ':grants', member) == 0 then return false end
  local left = redis.call('HINCRBY', base, 'granted', -tonumber(string.match(member, '^%d+')))
  if left <= 0 then redis.call('HDEL', base, 'granted') end
  return true
end

local function granted(base, now)
  for _, member in ipairs(redis.call('ZRANGEBYSCORE', base .. ':grants', '-inf', now)) do ungrant(base, member) end
  return tonumber(redis.call('HGET', base, 'granted') or '0')
end

local function used(rule, now)
  if rule.period == 0 then return redis.call('ZCARD', rule.base .. ':holders') end
  local times = rule.base .. ':times'
  local over = redis.call('ZRANGEBYSCORE', times, '-inf', now - rule.period)
  if #over == 0 then return tonumber(redis.call('HGET', rule.base, 'used') or '0') end
  local gone = 0
  for _, count in ipairs(redis.call('HMGET', rule.base, unpack(over))) do gone = gone + tonumber(count or '0') end
  redis.call('HDEL', rule.base, unpack(over))
  redis.call('ZREM', times, unpack(over))
  return redis.call('HINCRBY', rule.base, 'used', -gone)
end

-- Whether one more fits beside those that count, and beside those that were let go on (`others`).
local function fits(rule, now, others)
  local free = rule.most - used(rule, now) - rule.cost
  return free >= 0 and (not others or free - granted(rule.base, now) >= 0)
end

-- When a rule that is full may fit again, in µs; nil where nobody can say.
local function free_at(rule, now)
  if rule.period == 0 then return nil end
  local need = used(rule, now) + granted(rule.base, now) + rule.cost - rule.most
  if need <= 0 then return now end
  local rows = redis.call('ZRANGE', rule.base .. ':times', 0, -1, 'WITHSCORES')
  for n = 1, #rows, 2 do
    need = need - tonumber(redis.call('HGET', rule.base, rows[n]) or '0')
    if need <= 0 then return tonumber(rows[n + 1]) + rule.period end
  end
  return nil
end

local function take(rule, now, run)
  if rule.granted then ungrant(rule.base, rule.member) end
  if rule.period == 0 then
    redis.call('ZADD', rule.base .. ':holders', now, run)
    return
  end
  local width = rule.period / BUCKETS
  local bucket = string.format('%.0f', math.floor(now / width))
  local times = rule.base .. ':times'
  local count = redis.call('HINCRBY', rule.base, bucket, rule.cost)
  redis.call('HINCRBY', rule.base, 'used', rule.cost)
  redis.call('ZADD', times, now, bucket)
  if count == rule.cost then
    local ttl = math.ceil((rule.period + width) / 1000) + SLACK_MS
    redis.call('PEXPIRE', rule.base, ttl)
    redis.call('PEXPIRE', times, ttl)
  end
end

-- For workers that cannot let a run wait in Valkey: the ms after which it is to come again. Those that are refused
-- are given times one after the other, so that they do not all come back at once.
local function come_again(rule, now)
  local gap = rule.period == 0 and 50000 or rule.cost * rule.period / rule.most
  local first = free_at(rule, now) or now + 2000000
  -- Times that were told before the limit was changed are nobody's place among those of now.
  local bound = string.format('%.0f %.0f ', rule.most, rule.period)
  local last = string.match(redis.call('GET', rule.base .. ':again') or '', '^' .. bound .. '(%d+)$') or '0'
  local at = math.max(first, tonumber(last) + gap)
  local told = bound .. string.format('%.0f', at)
  redis.call('SET', rule.base .. ':again', told, 'PX', math.ceil((at - now) / 1000) + SLACK_MS)
  return math.ceil((at - now) / 1000)
end

-- admit(context, run, asked, lasts): may an attempt at this run start now? Then it has what it asked for.
-- asked   {rules = in the order in which they are waited for, apart = 1 where the run cannot wait in Valkey}
-- lasts   seconds that the attempt may last; 0 unknown
-- Reply   nil, or what stands in the way: 'number of the rule most period ms' (ms: see come_again; else 0)
local function admit(context, run, asked, lasts)
  local now, rules, slots = microseconds(context), {}, ''
  for n, each in ipairs(asked.rules) do
    local rule = rule_of(context, each, run)
    local lot, grants = rule.base .. ':lot', rule.base .. ':grants'
    local busy = redis.call('EXISTS', lot, grants) > 0
    rule.granted = busy and redis.call('ZSCORE', grants, rule.member)
    -- A run whose worker died takes its own slot again.
    local holds = rule.period == 0 and redis.call('ZSCORE', rule.base .. ':holders', run)
    local waits = busy and not rule.granted and redis.call('EXISTS', lot) == 1
    if not holds and (waits or not fits(rule, now, busy and not rule.granted)) then
      local ms = asked.apart and come_again(rule, now) or 0
      return string.format('%d %.0f %.0f %.0f', n - 1, rule.most, rule.period, ms)
    end
    rules[n] = rule
  end
  for _, rule in ipairs(rules) do
    take(rule, now, run)
    if rule.period == 0 then
      slots = slots .. '\0' .. rule.base
    elseif rule.granted then
      redis.call('ZADD', context.prefix .. 'limits:waiting', 'XX', 'LT', now + rule.period, rule.base)
    end
  end
  local live = context.prefix .. 'run:' .. run
  redis.call('HDEL', live, 'limited')
  if slots ~= '' then
    local deadline = lasts > 0 and math.ceil(now / 1000000 + lasts) or 0
    redis.call('HSET', live, 'slots', string.format('%.0f', deadline) .. slots)
  end
  return nil
end

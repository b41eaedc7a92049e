-- One event of one run: to the stream of events and to the live hash of the run, if the move it makes is legal.
--
-- The hash holds the state itself and, as JSON, the newest event of each stage of a life: `queued`, `reopened`,
-- `started`, `progress`, `ended` (its slot). Of its newest attempt it holds `at` (see attempt.lua) and `taken`: how many
-- workers took the message of that hop, and the second at which the last one did. `kept` is the second at which its
-- time to live was set, by the clock of who sent it at first: what is more than an hour off says nothing.
--
-- context  {prefix of keys, most entries in the stream of events, most deliveries of one hop, lease of who
--          speaks, seconds of now}
-- a        index into ARGV of: run id, kind, state after it ('' none), event as JSON, slot ('' none), seconds to
--          keep the hash, hop of the message (how often it was sent on; -1 no message at hand), flags, attempt
--          that speaks ('' nobody says), seconds that an attempt may last (0 unknown), key of the result ('' none),
--          seconds to keep it, the result, rules that the start of an attempt is under, as JSON ('' none)
-- flags    r  the message was delivered before      c  it is a copy that waited for a dead owner
--          d  the process that was at it has died, though its worker lives
--          a  said again, since nobody knows whether it was heard the first time
--          n  others are at work in the worker that asks
--          q  kept in the hash alone, since the stream was told of its like a moment ago
--          w  asked in full, since the run's life is not an ordinary one
-- The kind 'check' writes nothing: is the run still wanted, and still this attempt's?
-- Reply    verdict, attempt, deliveries, what more there is to say; verdict: 'ok', 'known' (queued before), 'refused' (an illegal move),
--          'stale' (a message that was sent on since, an attempt that is not the newest), 'running' (somebody
--          alive is at it), 'limited' (a limit stands in the way, and nothing was written), 'poison' (too many died of it),
--          'alone' (one more death and it is poison: it is to start where nothing else is at work; nothing was written)
local MESSAGE_WAITS = 90 * 86400
local STATE, AT, TAKEN, KEPT, SLOTS, BATCH, UNIQUE = 1, 2, 3, 4, 5, 6, 7

-- Tries the short way. Replies as `record`, or nothing.
local function record_ordinary(context, a)
  local kind = ARGV[a + 1]
  local starts = kind == 'started'
  if not (starts or kind == 'succeeded') or ARGV[a + 7] ~= '' or ARGV[a + 13] ~= '' then return nil end
  local number = starts and '1' or ARGV[a + 8]
  local at = attempt_as(ARGV[a + 6], number, context.lease)
  local done = ordinary(
    context, starts, ARGV[a], ARGV[a + 3], ARGV[a + 5], at, ARGV[a + 10], ARGV[a + 11], ARGV[a + 12])
  if done then return 'ok', tonumber(number), 1 end
end

local function record(context, a)
  local verdict, attempt, deliveries = record_ordinary(context, a)
  if verdict then return verdict, attempt, deliveries end
  local run = context.prefix .. 'run:' .. ARGV[a]
  local kind, state, event, slot, ttl = ARGV[a + 1], ARGV[a + 2], ARGV[a + 3], ARGV[a + 4], ARGV[a + 5]
  local hop, flags, speaks = tonumber(ARGV[a + 6]), ARGV[a + 7], ARGV[a + 8]
  local live = redis.call('HMGET', run, 'state', 'at', 'taken', 'kept', 'slots', 'batch', 'unique')
  local before, last, lease, begun = live[STATE]
  last, attempt, lease = attempt_of(live[AT])
  deliveries, begun = string.match(live[TAKEN] or '0 0', '^(%d+) (%d+)$')
  deliveries = tonumber(deliveries)
  local mine = context.lease ~= '' and lease == context.lease
  local facts = {}

  if string.find(flags, 'a', 1, true) and before == state and (mine or kind == 'queued') and last <= hop then
    return 'ok', attempt, deliveries
  end
  if kind == 'queued' then
    -- The message is out already where Celery sent it; else `put` has let it join.
    local batch = ARGV[a + 13] ~= '' and cjson.decode(ARGV[a + 13]).batch
    if batch then join(context, ARGV[a], batch, 0, before) end
    if before then
      -- A worker was faster than the producer's own record: only what is missing is filled in.
      if redis.call('HSETNX', run, 'queued', event) == 1 then
        write_event(context, event, attempt)
      end
      return 'known', attempt, deliveries
    end
    if speaks ~= '' then  -- sent again, since this server had lost it: attempts go on counting
      attempt = tonumber(speaks)
      facts = {'at', attempt_as(last, speaks, lease)}
    end
  elseif state ~= '' then
    if not MOVES[kind == 'reopened' and kind or state][before or 'none'] then
      -- It does not start; or it was revoked while it was at work, and only now its attempt is over.
      if kind == 'started' and before == 'revoked' then redis.call('EXPIRE', run, ttl) end -- its message is gone
      if kind == 'started' and ARGV[a + 13] ~= '' then give_up(context, ARGV[a], cjson.decode(ARGV[a + 13])) end
      if kind ~= 'started' and kind ~= 'reopened' and live[SLOTS] and mine then let_go(context, ARGV[a], live[SLOTS]) end
      return 'refused', attempt, deliveries
    end
    if kind == 'started' then
      local copy = string.find(flags, 'c', 1, true)
      if last > hop or (copy and not (last == hop and before == 'running')) then
        return 'stale', attempt, deliveries
      end
      if last == hop then
        if before == 'running' then
          local died = string.find(flags, 'd', 1, true)
          if not (copy or died or string.find(flags, 'r', 1, true)) then return 'running', attempt, deliveries end
          local owner, limit = lease, tonumber(ARGV[a + 9])
          local alive = owner ~= '' and redis.call('EXISTS', context.prefix .. 'lease:' .. owner) == 1
          -- Past its hard time limit nobody can be at it, whoever lives: its end could not be told.
          local over = limit > 0 and context.now > tonumber(begun) + limit
          if alive and not over and not died then return 'running', attempt, deliveries end
        end
        deliveries = deliveries + 1
      else
        deliveries = 1
      end
      if live[BATCH] and revoked(context, ARGV[a], live[BATCH]) then
        if ARGV[a + 13] ~= '' then give_up(context, ARGV[a], cjson.decode(ARGV[a + 13])) end
        return 'refused', attempt, deliveries, 'batch'
      end
      local wait = live[UNIQUE] and put_off(run)
      if wait then return 'early', attempt, deliveries, wait end
      -- What took its workers down takes those along that are beside it. Who may have is not counted once more by
      -- being beside another one.
      if string.find(flags, 'n', 1, true) and deliveries > 1 and deliveries == tonumber(context.max_deliveries) then
        return 'alone', attempt, deliveries - 1
      end
      if ARGV[a + 13] ~= '' then
        local limit = admit(context, ARGV[a], cjson.decode(ARGV[a + 13]), tonumber(ARGV[a + 9]))
        if limit then return 'limited', attempt, deliveries, limit .. (before == 'running' and ' lost' or '') end
      end
      if attempt > 0 or before == 'retrying' then redis.call('HDEL', run, 'progress', 'ended') end
      attempt = attempt + 1
      facts = {'at', attempt_as(hop, attempt, context.lease), 'taken', deliveries .. ' ' .. context.now}
    elseif kind == 'reopened' then
      if ARGV[a + 13] ~= '' then
        local verdict, first = claim(context, ARGV[a], cjson.decode(ARGV[a + 13]).unique)
        if verdict ~= 'ok' then return verdict, attempt, deliveries, first end
      end
      -- The hash may be forgotten by now; attempts go on counting from what the ledger has. A message of
      -- before may still wait in its queue: from now on it is stale.
      if before == 'succeeded' then redis.call('HDEL', run, 'checkpoint') end  -- all is to be done once more
      facts = {'at', attempt_as(hop >= 0 and hop or last, speaks ~= '' and speaks or attempt, lease)}
    else
      -- What a worker says about an attempt that is no longer the newest one comes too late.
      if hop >= 0 and last > hop then return 'stale', attempt, deliveries end
      if speaks ~= '' and before and tonumber(speaks) ~= attempt then return 'stale', attempt, deliveries end
      if speaks ~= '' and before == 'running' and context.lease ~= '' and not mine then
        return 'stale', attempt, deliveries
      end
      if kind == 'snoozed' then
        local taken = math.max(0, deliveries - 1) .. ' ' .. begun
        facts = {'at', attempt_as(last, math.max(0, attempt - 1), lease), 'taken', taken}
      end
    end
  elseif speaks ~= '' and before then
    -- What an attempt tells on its way is heard while the run is its own.
    if MOVES.final[before] then return 'refused', attempt, deliveries end
    local others = before == 'running' and context.lease ~= '' and not mine
    if last > hop or tonumber(speaks) ~= attempt or others then return 'stale', attempt, deliveries end
  end
  if kind == 'check' then return 'ok', attempt, deliveries end
  if kind == 'revoked' and before ~= 'running' then
    -- Its message may wait for long, and would start a run that nobody remembers.
    ttl = math.max(tonumber(ttl), redis.call('TTL', run), MESSAGE_WAITS)
  end

  if not string.find(flags, 'q', 1, true) then
    write_event(context, event, attempt)
  end
  if state ~= '' then
    facts[#facts + 1] = 'state'
    facts[#facts + 1] = state
  end
  if slot ~= '' then
    facts[#facts + 1] = slot
    facts[#facts + 1] = event
  end
  if #facts > 0 then
    -- A life of seconds needs its time to live set twice: when it begins and when it ends. One that goes on in
    -- a month is remembered until then.
    local renew = not before or MOVES.final[state] or math.abs(context.now - tonumber(live[KEPT] or '0')) > HOUR
      or tonumber(ttl) > 169 * HOUR
    if renew then
      facts[#facts + 1] = 'kept'
      facts[#facts + 1] = context.now
    end
    redis.call('HSET', run, unpack(facts))
    if renew then redis.call('EXPIRE', run, ttl) end
    local key = live[UNIQUE] or kind == 'reopened' and redis.call('HGET', run, 'unique')
    if key and renew then keep_claim(ARGV[a], key, MOVES.final[state], state, ttl) end
    -- From now on its messages have the newest arguments themselves.
    if key and (kind == 'retrying' or kind == 'snoozed') then redis.call('HDEL', run, 'renewed') end
  end
  if ARGV[a + 10] ~= '' then keep(context, ARGV[a + 10], ARGV[a + 11], ARGV[a + 12]) end
  -- Who is revoked while at work is at work until the attempt has ended.
  if live[SLOTS] and state ~= '' and kind ~= 'started' and not (kind == 'revoked' and before == 'running') then
    let_go(context, ARGV[a], live[SLOTS])
  end
  if live[BATCH] and MOVES.final[state] then member_ended(context, ARGV[a], live[BATCH], state) end
  if live[BATCH] and kind == 'reopened' then member_reopened(context, ARGV[a], live[BATCH], before) end
  if kind == 'started' and deliveries > tonumber(context.max_deliveries) then
    return 'poison', attempt, deliveries, live[UNIQUE] and newest_request(run)
  end
  return 'ok', attempt, deliveries, live[UNIQUE] and kind == 'started' and newest_request(run) or nil
end

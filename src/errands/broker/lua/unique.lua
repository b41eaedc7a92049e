-- Unique runs: which run stands for a request.
--
-- unique:<key>  hash: run (who holds the claim), at (seconds, when it was accepted), within ('1': the claim ends by
--               its own expiry), lasts (final states in which the run still stands for others), ended (the final
--               state that it came to)
--
-- A claim is no lock. It names a run, and means nothing unless that run is there, in one of the states that the
-- asking request counts. A run that is being sent by Celery has a hash without a state; the hash of one that was
-- never sent is gone after GRACE seconds.
--
-- unique  {key, on ('keep', 'replace', 'debounce'; 'look': claim nothing; 'reopen': say nothing to who stands),
--          states (set of those in which a run stands for others), lasts, within (ms, or nothing),
--          new (facts of the event that gives a waiting run new arguments), wait and most (ms, with 'debounce'),
--          told (event, as JSON, of a run that ends as a duplicate, since its id is known to somebody)}
local GRACE = 30
local WAITS = {scheduled = true, queued = true, retrying = true, sent = true}

-- The waiting run takes the arguments of a later request, and starts later if that is asked for.
local function renew_request(context, hash, first, attempt, at, unique)
  local eta = ''
  if unique.wait then
    local time = redis.call('TIME')
    local due = time[1] * 1000 + math.ceil(time[2] / 1000) + unique.wait
    if unique.most then due = math.min(due, at * 1000 + unique.most) end
    redis.call('HSET', hash, 'due', string.format('%.0f', due))
    eta = string.format('"eta":%.3f,', due / 1000)
  end
  local event = '{"kind":"replaced","run_id":' .. cjson.encode(first) .. ',' .. eta .. unique.new .. '}'
  redis.call('HSET', hash, 'replaced', event, 'renewed', 1)
  write_event(context, event, attempt)
end

-- Whoever knows the id of a run that another one stands for is told so.
local function end_as_duplicate(context, run, first, unique)
  local note = cjson.encode('duplicate of ' .. first)
  local event = string.sub(unique.told, 1, -2) .. ',"error":{"type":"Duplicate","message":' .. note .. '},"note":' .. note .. '}'
  local hash = context.prefix .. 'run:' .. run
  redis.call('HSET', hash, 'state', 'discarded', 'ended', event, 'kept', context.now)
  redis.call('EXPIRE', hash, unique.keep)
  write_event(context, event, 0)
end

-- claim(context, run, unique): 'ok', the run is the one that stands for this work; or 'duplicate' and who is.
local function claim(context, run, unique)
  local key = context.prefix .. 'unique:' .. unique.key
  local held = redis.call('HMGET', key, 'run', 'at', 'ended')
  local first = held[1]
  if first and first ~= run then
    local hash = context.prefix .. 'run:' .. first
    local live = redis.call('HMGET', hash, 'state', 'unique', 'at')
    local state = live[1] or held[3] or (live[2] and 'sent')
    if state and (state == 'sent' or unique.states[state]) then
      if unique.on ~= 'look' and unique.on ~= 'reopen' then
        if live[1] or live[2] then redis.call('HINCRBY', hash, 'others', 1) end
        if unique.new and WAITS[state] then
          redis.call('HSET', hash, 'unique', key)
          local _, attempt = attempt_of(live[3])
          renew_request(context, hash, first, attempt, tonumber(held[2]), unique)
        end
        if unique.told then end_as_duplicate(context, run, first, unique) end
      end
      return 'duplicate', first
    end
  end
  if unique.on ~= 'look' then
    redis.call('HSET', key, 'run', run, 'at', context.now, 'within', unique.within and 1 or '', 'lasts', unique.lasts)
    redis.call('HDEL', key, 'ended')
    local hash = context.prefix .. 'run:' .. run
    redis.call('HSET', hash, 'unique', key)
    local ttl = redis.call('TTL', hash)
    if ttl < 0 then redis.call('EXPIRE', hash, GRACE) end
    redis.call('PEXPIRE', key, unique.within or math.max(ttl, GRACE) * 1000)
  end
  return 'ok', ''
end

-- The claim of a run goes with it: kept as long as its hash, given up or marked at its end.
local function keep_claim(run, key, final, state, ttl)
  local held = redis.call('HMGET', key, 'run', 'within', 'lasts')
  if held[1] ~= run then return end
  if not final then
    if held[2] == '' then redis.call('EXPIRE', key, ttl) end
  elseif string.find(held[3], state, 1, true) then
    redis.call('HSET', key, 'ended', state)
  else
    redis.call('DEL', key)
  end
end

-- Milliseconds until the run may start, where later requests have put it off; nil: it may.
local function put_off(hash)
  local due = redis.call('HGET', hash, 'due')
  if not due then return nil end
  local time = redis.call('TIME')
  local left = tonumber(due) - (time[1] * 1000 + math.floor(time[2] / 1000))
  return left > 0 and string.format('%.0f', left) or nil
end

-- The event that gave the run arguments which its message does not have; nil where there is none.
local function newest_request(hash)
  local live = redis.call('HMGET', hash, 'renewed', 'replaced')
  return live[1] and live[2] or nil
end

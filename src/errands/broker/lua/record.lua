-- Write one event, if the move it makes is legal: to the stream of events and to the live hash of the run.
--
-- KEYS  1 stream of events   2 hash of the run
-- ARGV  1 event as JSON      2 its kind         3 state after it, '' for none
--       4 states it may come from, as ",a,b,"; "none" stands for a run not known yet
--       5 seconds to keep the hash              6 most entries in the stream
--       7 hop of the message (how often it was sent on)
--       8 '1' if the message was delivered before   9 most deliveries of one hop
--       10 the lease of the worker that speaks     11 '1' if the message is a copy that waited for a dead owner
--       12 prefix of leases                       13 seconds that an attempt may last, 0 for unknown
--       14… pairs for the hash
-- Reply {verdict, attempt}; verdict: 'ok', 'known' (queued before), 'refused' (an illegal move), 'stale' (a
--       message that was sent on since), 'running' (somebody alive is at it), 'poison' (too many died of it)
local kind, state = ARGV[2], ARGV[3]
local hop = tonumber(ARGV[7])
local live = redis.call('HMGET', KEYS[2], 'state', 'hop', 'attempt', 'deliveries', 'lease', 'begun')
local before, attempt = live[1], tonumber(live[3] or '0')
local verdict, deliveries = 'ok', 1
local now = tonumber(redis.call('TIME')[1])

if kind == 'queued' then
  -- A worker may have been faster than the producer's own record: then only what is missing is filled in.
  if before then verdict = 'known' end
elseif kind == 'started' then
  local last = tonumber(live[2] or '-1')
  if before and not string.find(ARGV[4], ',' .. before .. ',', 1, true) then return {'refused', attempt} end
  if last > hop then return {'stale', attempt} end
  if ARGV[11] == '1' and not (last == hop and before == 'running') then return {'stale', attempt} end
  if last == hop then
    if before == 'running' then
      if ARGV[8] ~= '1' then return {'running', attempt} end
      local owner, limit = live[5] or '', tonumber(ARGV[13])
      local alive = owner ~= '' and redis.call('EXISTS', ARGV[12] .. owner) == 1
      -- Past its hard time limit nobody can be at it, whoever lives: its end could not be told.
      local over = limit > 0 and now > tonumber(live[6] or '0') + limit
      if alive and not over then return {'running', attempt} end
    end
    deliveries = tonumber(live[4] or '0') + 1
  end
  attempt = attempt + 1
  -- What the last attempt left is told by its own events; the hash is about the present one.
  redis.call('HDEL', KEYS[2], 'eta', 'error', 'note', 'progress', 'result', 'finished_at')
  if deliveries > tonumber(ARGV[9]) then verdict = 'poison' end
elseif state ~= '' then
  if not string.find(ARGV[4], ',' .. (before or 'none') .. ',', 1, true) then return {'refused', attempt} end
  -- What a worker says about an attempt that is no longer the newest one comes too late.
  if hop >= 0 and tonumber(live[2] or '-1') > hop then return {'stale', attempt} end
  if kind == 'snoozed' then
    deliveries = math.max(0, tonumber(live[4] or '0') - 1)
    redis.call('HSET', KEYS[2], 'attempt', math.max(0, attempt - 1), 'deliveries', deliveries)
  end
end

redis.call('XADD', KEYS[1], 'MAXLEN', '~', ARGV[6], '*', 'e', ARGV[1], 'n', attempt)
if verdict == 'known' then
  for i = 14, #ARGV, 2 do redis.call('HSETNX', KEYS[2], ARGV[i], ARGV[i + 1]) end
else
  local facts = {}
  for i = 14, #ARGV do facts[#facts + 1] = ARGV[i] end
  if state ~= '' then
    facts[#facts + 1] = 'state'
    facts[#facts + 1] = state
  end
  if kind == 'started' then
    for name, value in pairs({attempt = attempt, hop = hop, deliveries = deliveries, lease = ARGV[10], begun = now}) do
      facts[#facts + 1] = name
      facts[#facts + 1] = value
    end
  end
  if #facts > 0 then redis.call('HSET', KEYS[2], unpack(facts)) end
end
redis.call('EXPIRE', KEYS[2], ARGV[5])
return {verdict, attempt}

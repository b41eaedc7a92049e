-- Batches: runs that are counted together, with runs that follow when the last of them has ended.
--
-- batch:<id>         hash: name, at (seconds, when it was made), state ('running', at last how it ended; '' while its
--                    members came before itself), total, succeeded, failed, open ('1' while members are being sent),
--                    fault (why it fails, whatever its members do), open_for and expires (seconds of silence, see
--                    `heard`), heard (when something last was), latest (when its latest member is due), told and told_at
--                    (percentage last told, and when, in ms), followed ('1': what follows it was sent), and what
--                    follows: on_success, on_complete (operations, as JSON), later ('1': signatures, for the beat to send);
--                    rebuilt ('1': the server had lost it, and the beat counts it from the ledger)
-- batch:<id>:failed  list: ids of the first members that did not succeed
-- batches            sorted set: batches that have not ended, by the second at which their silence is too long
-- batches:follow     set: batches that have ended, and what follows them is the beat's to send
-- batches:rebuilt    set: rebuilt batches that have not ended
--
-- What a change leads to (the end of the batch, the runs that follow it) is appended to the operations of the
-- call at hand, so that it is committed with what led to it, or not at all. A member's hash names its batch; as
-- its states are fenced (record.lua), each end is counted once.
local DAY, WEEK, MOST_FAILED, TELL_MS = 86400, 604800, 1000, 250
local FIELDS = {
  'state', 'total', 'succeeded', 'failed', 'open', 'fault', 'followed', 'told', 'told_at', 'at', 'open_for', 'expires',
  'heard', 'latest', 'rebuilt',
}

local function commit_also(operation)
  local last = #ARGV
  for n = 1, #operation do ARGV[last + n] = operation[n] end
end

-- One more event of a run, without a message at hand.
local function record_also(run, kind, state, slot, ttl, event)
  commit_also({'record', run, kind, state, cjson.encode(event), slot, ttl, -1, '', '', 0, '', 0, '', ''})
end

local function milliseconds(context)
  if not context.ms then
    local time = redis.call('TIME')
    context.ms = tonumber(time[1]) * 1000 + math.floor(tonumber(time[2]) / 1000)
  end
  return context.ms
end

-- The batch, read once in a call.
local function batch_of(context, id)
  context.batches = context.batches or {}
  local b = context.batches[id]
  if not b then
    local key = context.prefix .. 'batch:' .. id
    local values = redis.call('HMGET', key, unpack(FIELDS))
    b = {id = id, key = key}
    for n, name in ipairs(FIELDS) do b[name] = values[n] or '' end
    for _, name in ipairs({'total', 'succeeded', 'failed', 'told_at', 'at', 'heard', 'latest'}) do
      b[name] = tonumber(b[name]) or 0
    end
    context.batches[id] = b
  end
  return b
end

local function set(b, ...)
  local facts = {...}
  for n = 1, #facts, 2 do b[facts[n]] = facts[n + 1] end
  redis.call('HSET', b.key, ...)
end

-- Something was heard of the batch: it is given up only after so many seconds of silence.
local function heard(context, b, always)
  local silence = tonumber(b.open == '1' and b.open_for or b.expires) or WEEK
  if b.followed == '1' or (not always and context.now - b.heard < math.min(60, silence / 4)) then return end
  local deadline = math.max(context.now, b.open == '1' and 0 or b.latest) + silence
  local ttl = math.ceil(deadline - context.now) + WEEK
  set(b, 'heard', context.now)
  if b.state ~= '' then redis.call('ZADD', context.prefix .. 'batches', deadline, b.id) end
  redis.call('EXPIRE', b.key, ttl)
  redis.call('EXPIRE', b.key .. ':failed', ttl)
  redis.call('EXPIRE', context.prefix .. 'run:' .. b.id, ttl)
end

local function progress_of(b)
  local done = b.succeeded + b.failed
  return {
    current = done, total = b.total, note = b.failed > 0 and b.failed .. ' failed' or '',
    percentage = b.total > 0 and math.min(100, math.floor(100 * done / b.total)) or 100,
  }
end

-- Told at most once a quarter of a second, and only when the percentage has changed.
local function tell(context, b)
  local now, progress = milliseconds(context), progress_of(b)
  if b.state ~= 'running' or tostring(progress.percentage) == b.told or now - b.told_at < TELL_MS then return end
  set(b, 'told', tostring(progress.percentage), 'told_at', now)
  record_also(b.id, 'progress', '', 'progress', WEEK, {kind = 'progress', run_id = b.id, at = now / 1000, progress = progress})
end

-- Put what follows the batch into its queues. It was made ready when the batch was; only its time is new.
local function follow(context, b, which)
  local operations = redis.call('HGET', b.key, which)
  if not operations or operations == '' then return end
  local at = string.format('%.3f', milliseconds(context) / 1000)
  for _, operation in ipairs(cjson.decode(operations)) do
    if not string.find(operation[4], '"sig":"', 1, true) then -- a signed message stays as it was signed
      operation[4] = string.gsub(operation[4], '"queued_at":[%d.]+', '"queued_at":' .. at, 1)
    end
    operation[12] = string.gsub(operation[12], '"at":[%d.]+', '"at":' .. at, 1)
    commit_also(operation)
  end
end

local function finish(context, b)
  local now = milliseconds(context) / 1000
  if b.state == 'running' then
    local state = (b.failed == 0 and b.fault == '') and 'succeeded' or 'failed'
    local event = {
      kind = state, run_id = b.id, at = now, task = 'errands.batch', attempt = 1, duration = math.max(0, now - b.at),
      result = {total = b.total, succeeded = b.succeeded, failed = b.failed}, progress = progress_of(b),
    }
    if state == 'failed' then
      local text = b.fault ~= '' and b.fault or b.failed .. ' of ' .. b.total .. ' runs did not succeed'
      event.error = {type = 'BatchFailed', message = text}
    end
    set(b, 'state', state)
    record_also(b.id, state, state, 'ended', WEEK, event)
  end
  set(b, 'followed', '1')
  redis.call('ZREM', context.prefix .. 'batches', b.id)
  if b.rebuilt == '1' then redis.call('SREM', context.prefix .. 'batches:rebuilt', b.id) end
  redis.call('EXPIRE', b.key, WEEK)
  redis.call('EXPIRE', b.key .. ':failed', WEEK)
  if redis.call('HGET', b.key, 'later') == '1' then
    redis.call('SADD', context.prefix .. 'batches:follow', b.id)
  else
    if b.state == 'succeeded' then follow(context, b, 'on_success') end
    follow(context, b, 'on_complete')
  end
end

local function look_whether_over(context, b)
  if b.rebuilt == '1' then return end -- the beat does, in the ledger
  local all = b.succeeded + b.failed >= b.total
  if all and b.state ~= '' and b.open ~= '1' and b.followed ~= '1' then
    finish(context, b)
  else
    tell(context, b)
  end
end

local function count(context, b, run, state)
  if b.rebuilt == '1' then return end
  local field, failed = 'succeeded', b.key .. ':failed'
  if state ~= 'succeeded' then
    field = 'failed'
    if b.failed < MOST_FAILED then
      redis.call('RPUSH', failed, run)
      if b.failed == 0 then redis.call('EXPIRE', failed, WEEK) end
    end
  end
  set(b, field, b[field] + 1)
end

-- over(context, id): does the batch take no more members?
local function over(context, id)
  local b = batch_of(context, id)
  return b.followed == '1' or (b.state ~= '' and b.state ~= 'running')
end

-- join(context, run, id, due, state): the run is a member of the batch from now on. A second time does nothing.
-- due: when it may start, as put.lua has it; 0 at once.   state: the one that it is in, or nil; it may have ended already.
local function join(context, run, id, due, state)
  if over(context, id) or redis.call('HSETNX', context.prefix .. 'run:' .. run, 'batch', id) == 0 then return end
  local b = batch_of(context, id)
  if b.rebuilt ~= '1' then set(b, 'total', b.total + 1) end
  if due < 0 then due = milliseconds(context) - due end
  if due / 1000 > b.latest then set(b, 'latest', due / 1000) end
  heard(context, b, b.total == 1)
  if state and MOVES.final[state] then
    count(context, b, run, state)
    look_whether_over(context, b)
  end
end

-- member_ended(context, run, id, state): a member has come to its final state.
local function member_ended(context, run, id, state)
  local b = batch_of(context, id)
  if b.total == 0 then return end -- forgotten long ago
  count(context, b, run, state)
  heard(context, b)
  look_whether_over(context, b)
end

-- member_reopened(context, run, id, state): a member that had ended in `state` goes on after all.
local function member_reopened(context, run, id, state)
  local b = batch_of(context, id)
  if b.total == 0 or b.rebuilt == '1' then return end
  local field = state == 'succeeded' and 'succeeded' or 'failed'
  set(b, field, math.max(0, b[field] - 1))
  if field == 'failed' then redis.call('LREM', b.key .. ':failed', 1, run) end
end

-- revoked(context, run, id): was the batch revoked? Then this member, which was about to start, is revoked too.
local function revoked(context, run, id)
  if batch_of(context, id).state ~= 'revoked' then return false end
  local event = {kind = 'revoked', run_id = run, at = milliseconds(context) / 1000, note = 'its batch was revoked'}
  record_also(run, 'revoked', 'revoked', 'ended', DAY, event)
  return true
end

-- What the ledger knows of a batch that this server had lost.
local function recount(context, b, facts)
  if b.rebuilt ~= '1' then return 'known' end
  local changed = facts.total ~= b.total or facts.succeeded ~= b.succeeded or facts.failed ~= b.failed
  if changed then
    local failed = b.key .. ':failed'
    set(b, 'total', facts.total, 'succeeded', facts.succeeded, 'failed', facts.failed)
    redis.call('DEL', failed)
    for _, run in ipairs(facts.failed_ids) do redis.call('RPUSH', failed, run) end
    heard(context, b, true)
  end
  if facts.fault ~= '' and b.fault == '' then set(b, 'fault', facts.fault) end
  if facts.over then finish(context, b) else tell(context, b) end
  return 'ok'
end

-- change_batch(context, what, id, facts): what is done to a batch itself.
--   open     facts: what its hash is to hold; with open = '' it has all of its members already
--   close    all its members were sent; facts: fault
--   revoke   nothing of it that waits will start; facts: fault
--   give_up  nothing was heard of it for too long
--   recount  what the ledger knows of a rebuilt one; facts: total, succeeded, failed, failed_ids, fault, over
-- Reply 'ok', 'known' (nothing to do), 'refused' (it has ended)
local function change_batch(context, what, id, facts)
  local b = batch_of(context, id)
  if what == 'open' then
    if over(context, id) then return 'refused' end
    local known = b.state ~= ''
    if b.total < facts.expected then facts.rebuilt = '1' end
    if known then facts.rebuilt = nil end
    facts.expected = nil
    facts.state = 'running'
    if b.at == 0 then facts.at = milliseconds(context) / 1000 end
    for name, value in pairs(facts) do set(b, name, value) end
    if facts.rebuilt == '1' then
      set(b, 'total', 0, 'succeeded', 0, 'failed', 0)
      redis.call('SADD', context.prefix .. 'batches:rebuilt', id)
    end
    heard(context, b, true)
    if b.open ~= '1' then look_whether_over(context, b) end
    return known and 'known' or 'ok'
  end
  if b.state == '' or b.followed == '1' then return 'known' end
  if what == 'give_up' then
    local deadline = tonumber(redis.call('ZSCORE', context.prefix .. 'batches', id) or '0')
    if deadline > context.now then return 'known' end
    local missing = b.total - b.succeeded - b.failed
    if b.open == '1' then
      facts.fault = 'its sender was not heard of for too long: not all of it may have been sent'
    else
      set(b, 'fault', 'nothing was heard of it for too long: ' .. missing .. ' of ' .. b.total .. ' runs have not ended')
      finish(context, b)
      return 'ok'
    end
  elseif what == 'recount' then
    return recount(context, b, facts)
  elseif what == 'revoke' then
    if b.state ~= 'running' then return 'known' end
    set(b, 'state', 'revoked')
  elseif b.open ~= '1' then
    return 'known'
  end
  set(b, 'open', '')
  if facts.fault and facts.fault ~= '' and b.fault == '' then set(b, 'fault', facts.fault) end
  heard(context, b, true)
  look_whether_over(context, b)
  return 'ok'
end

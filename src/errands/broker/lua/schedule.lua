-- The due times of schedules: one run for each, and sent by the beat that leads alone.
--
-- Hash schedule       by name, JSON {due: ms of the newest due time that was dealt with, run: the newest run's id, …}
-- Hash schedule:now   by name, the id of the run that a person started last
--
-- asked  {lead: the lease as its holder wrote it, name, due: ms, skip: whether a run that is open stands in the
--         way, final: by name, the states of runs that are not open, state: what is kept once it is sent}
local function may_send(context, asked)
  if redis.call('GET', context.prefix .. 'leader') ~= asked.lead then return 'fenced', '' end
  local key = context.prefix .. 'schedule'
  local kept = redis.call('HGET', key, asked.name)
  local last = kept and cjson.decode(kept) or {}
  if (last.due or 0) >= asked.due then return 'known', last.run or '' end
  if asked.skip then
    for _, run in ipairs({last.run or '', redis.call('HGET', key .. ':now', asked.name) or ''}) do
      local state = run ~= '' and redis.call('HGET', context.prefix .. 'run:' .. run, 'state')
      if state and not asked.final[state] then return 'overlap', run end
    end
  end
  return 'ok', ''
end

local function note_sent(context, asked, run)
  if run ~= '' then asked.state.run = run end
  redis.call('HSET', context.prefix .. 'schedule', asked.name, cjson.encode(asked.state))
end

-- Commit operations, one after the other, in one call. What they do is in put.lua, record.lua and keep.lua;
-- what the rules of tasks add is in schedule.lua, unique.lua, limits.lua and batch.lua.
--
-- ARGV  1 prefix of keys   2 most entries in the stream of events   3 most deliveries of one hop
--       4 lease of who speaks ('' for a producer)
--       5… operations, each its name and its arguments:
--          put     queue, level, message, due in ms (0 at once), member of the delayed set, 'new' or '', rules of
--                  the call as JSON ('' none), and then those of record: the event that tells of it (its JSON is ''
--                  where nothing is told)
--          record  see record.lua
--          wait    queue, level, message, run id, what it waits for as JSON: see wait_for in waiting.lua
--          claim   run id, what its rule says as JSON: see unique.lua
--          batch   what is done to a batch, its id, facts as JSON: see change_batch in batch.lua
--          store   key, seconds, value, unless: a result, kept unless the one that is there matches the pattern `unless`
-- Reply verdict, attempt, deliveries and what more there is to say about it, of each
local context = {
  prefix = ARGV[1], events = ARGV[1] .. 'events', events_max = ARGV[2], max_deliveries = ARGV[3], lease = ARGV[4],
  now = tonumber(redis.call('TIME')[1]),
}
local RECORD = 14
local i, replies = 5, {}

while i <= #ARGV do
  local what = ARGV[i]
  local verdict, attempt, deliveries, about = 'ok', 0, 0, ''
  if what == 'put' then
    local a = i + 8
    local rules = ARGV[i + 7] ~= '' and cjson.decode(ARGV[i + 7]) or nil
    local schedule = rules and rules.schedule
    if schedule then verdict, about = may_send(context, schedule) end
    if verdict == 'ok' then
      if ARGV[i + 6] == 'new' and redis.call('EXISTS', context.prefix .. 'run:' .. ARGV[a]) == 1 then
        verdict = 'known'
      elseif rules and rules.batch and over(context, rules.batch) then
        verdict, about = 'refused', 'its batch has ended'
      elseif rules and rules.unique then
        verdict, about = claim(context, ARGV[a], rules.unique)
      end
      if schedule then note_sent(context, schedule, about or '') end
    end
    if verdict == 'ok' then
      put(context.prefix, ARGV[i + 1], ARGV[i + 2], ARGV[i + 3], tonumber(ARGV[i + 4]), ARGV[i + 5])
      if rules and rules.batch then join(context, ARGV[a], rules.batch, tonumber(ARGV[i + 4])) end
      if ARGV[a + 3] ~= '' then verdict, attempt, deliveries, about = record(context, a) end
    end
    i = a + RECORD
  elseif what == 'record' then
    verdict, attempt, deliveries, about = record(context, i + 1)
    i = i + 1 + RECORD
  elseif what == 'wait' then
    local said = cjson.decode(ARGV[i + 5])
    verdict = wait_for(context, ARGV[i + 4], ARGV[i + 1], ARGV[i + 2], ARGV[i + 3], said)
    i = i + 6
  elseif what == 'claim' then
    verdict, about = claim(context, ARGV[i + 1], cjson.decode(ARGV[i + 2]))
    i = i + 3
  elseif what == 'batch' then
    verdict = change_batch(context, ARGV[i + 1], ARGV[i + 2], cjson.decode(ARGV[i + 3]))
    i = i + 4
  else
    local unless = ARGV[i + 4]
    local there = unless ~= '' and redis.call('GET', ARGV[i + 1])
    if there and string.find(there, unless) then
      verdict = 'known'
    else
      keep(context, ARGV[i + 1], ARGV[i + 2], ARGV[i + 3])
    end
    i = i + 5
  end
  local n = #replies
  replies[n + 1], replies[n + 2], replies[n + 3], replies[n + 4] = verdict, attempt, deliveries, about or ''
end
wake_who_waits(context)
return replies

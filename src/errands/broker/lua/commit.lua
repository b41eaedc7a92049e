-- Commit operations, one after the other, in one call. What they do is in put.lua, record.lua and keep.lua;
-- what the rules of tasks add is in unique.lua, limits.lua and batch.lua.
--
-- ARGV  1 prefix of keys   2 most entries in the stream of events   3 most deliveries of one hop
--       4 lease of who speaks ('' for a producer)
--       5… operations, each its name and its arguments:
--          put     queue, level, message, due in ms (0 at once), member of the delayed set, 'new' or '', rules of
--                  the call as JSON ('' none), and then those of record: the event that tells of it (its JSON is ''
--                  where nothing is told)
--          record  see record.lua
--          store   key, seconds, value, unless: a result, kept unless the one that is there matches the pattern `unless`
-- Reply verdict, attempt, deliveries and what more there is to say about it, of each
local context = {
  prefix = ARGV[1], events_max = ARGV[2], max_deliveries = ARGV[3], lease = ARGV[4],
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
    if ARGV[i + 6] == 'new' and redis.call('EXISTS', context.prefix .. 'run:' .. ARGV[a]) == 1 then
      verdict = 'known'
    elseif rules and rules.unique then
      verdict, about = claim(context, ARGV[a], rules.unique)
    end
    if verdict == 'ok' then
      put(context.prefix, ARGV[i + 1], ARGV[i + 2], ARGV[i + 3], tonumber(ARGV[i + 4]), ARGV[i + 5])
      if rules and rules.batch then join(context, ARGV[a], rules.batch) end
      if ARGV[a + 3] ~= '' then verdict, attempt, deliveries, about = record(context, a) end
    end
    i = a + RECORD
  elseif what == 'record' then
    verdict, attempt, deliveries, about = record(context, i + 1)
    i = i + 1 + RECORD
  else
    local unless = ARGV[i + 4]
    local there = unless ~= '' and redis.call('GET', ARGV[i + 1])
    if there and string.find(there, unless) then
      verdict = 'known'
    else
      keep(ARGV[i + 1], ARGV[i + 2], ARGV[i + 3])
    end
    i = i + 5
  end
  local n = #replies
  replies[n + 1], replies[n + 2], replies[n + 3], replies[n + 4] = verdict, attempt, deliveries, about or ''
end
return replies

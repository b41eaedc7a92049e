-- Send new runs that no rule has a say in, at once: what commit.lua does for such a `put`, written in one piece.
-- The server makes all functions of a script anew at each call, and that of commit.lua would take it longer than the
-- sending itself.
--
-- ARGV  1 prefix of keys   2 most entries in the stream of events
--       3… of each run: queue, level, message, run id, 'new' or '', the event that tells of it as JSON, seconds to
--          keep its hash
-- Reply as commit.lua
local call, prefix, most = redis.call, ARGV[1], ARGV[2]
local now, events, queues = call('TIME')[1], prefix .. 'events', prefix .. 'q:'
local replies, n, trimmed = {}, 0, false

for i = 3, #ARGV, 7 do
  local run, verdict, attempt = prefix .. 'run:' .. ARGV[i + 3], 'ok', 0
  local known = call('EXISTS', run) == 1
  if known then verdict = 'known' end
  if not known or ARGV[i + 4] == '' then
    if known then attempt = tonumber(string.match(call('HGET', run, 'at') or '', '^%S+ (%S+)') or '0') end
    call('XADD', queues .. ARGV[i] .. ':' .. ARGV[i + 1], '*', 'm', ARGV[i + 2])
    -- A worker may have been faster than the one who tells of it: then only what is missing is filled in.
    if not known or call('HSETNX', run, 'queued', ARGV[i + 5]) == 1 then
      if trimmed then
        call('XADD', events, '*', 'e', ARGV[i + 5], 'n', attempt)
      else
        call('XADD', events, 'MAXLEN', '~', most, '*', 'e', ARGV[i + 5], 'n', attempt)
        trimmed = true
      end
    end
    if not known then
      call('HSET', run, 'state', 'queued', 'queued', ARGV[i + 5], 'kept', now)
      call('EXPIRE', run, ARGV[i + 6])
    end
  end
  replies[n + 1], replies[n + 2], replies[n + 3], replies[n + 4] = verdict, attempt, 0, ''
  n = n + 4
end
return replies

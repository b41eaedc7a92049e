-- Record what workers say of ordinary lives, and of nothing else: what commit.lua does for it, in a short script. The
-- server makes all functions of a script anew at each call, and each argument costs it a quarter of a microsecond.
--
-- ARGV  1 prefix of keys   2 most entries in the stream of events   3 lease of who speaks
--       4… of each start:   's', run id, event as JSON, seconds to keep the hash, the attempt (see attempt.lua) without
--                           its lease
--          of each success: 'e', the same, key of the result ('' none), seconds to keep it, the result
-- Reply as commit.lua; 'other' where a life is not ordinary: nothing was done, and commit.lua is to be asked
local context = {
  prefix = ARGV[1], events = ARGV[1] .. 'events', events_max = ARGV[2], lease = ARGV[3],
  now = tonumber(redis.call('TIME')[1]),
}
local lease, replies, n, i = ' ' .. ARGV[3], {}, 0, 4

while i <= #ARGV do
  local starts, done = ARGV[i] == 's', nil
  local at = ARGV[i + 4]
  if starts then
    done = ordinary(context, true, ARGV[i + 1], ARGV[i + 2], ARGV[i + 3], at .. lease)
    i = i + 5
  else
    done = ordinary(context, false, ARGV[i + 1], ARGV[i + 2], ARGV[i + 3], at .. lease,
      ARGV[i + 5], ARGV[i + 6], ARGV[i + 7])
    i = i + 8
  end
  replies[n + 1], replies[n + 2] = done and 'ok' or 'other', tonumber(string.match(at, ' (%S+)'))
  replies[n + 3], replies[n + 4] = 1, ''
  n = n + 4
end
wake_who_waits(context)
return replies

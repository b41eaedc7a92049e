-- Take a run's delayed messages out, and the one that waits for a limit. See put.lua for the rule of members.
-- Needs waiting.lua.
--
-- ARGV  1 prefix of keys   2 queue   3 run id
-- Reply how many there were
local q, gone = ARGV[1] .. 'q:' .. ARGV[2], leave({prefix = ARGV[1]}, ARGV[2], ARGV[3])
for n = 1, 9 do
  local member = n == 1 and ARGV[3] or ARGV[3] .. '#' .. n
  gone = gone + redis.call('ZREM', q .. ':delayed', member)
  redis.call('HDEL', q .. ':delayed:messages', member)
end
return gone

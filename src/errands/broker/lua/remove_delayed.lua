-- Take a run's delayed messages out. See put.lua for the rule of members.
--
-- ARGV  1 prefix of keys   2 queue   3 run id
-- Reply how many there were
local q, gone = ARGV[1] .. 'q:' .. ARGV[2], 0
for n = 1, 9 do
  local member = n == 1 and ARGV[3] or ARGV[3] .. '#' .. n
  gone = gone + redis.call('ZREM', q .. ':delayed', member)
  redis.call('HDEL', q .. ':delayed:messages', member)
end
return gone

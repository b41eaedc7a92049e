-- Put one message. Needs put.lua.
--
-- ARGV  1-6 as put()   7 ms after which the queue's keys expire unused; 0: never
put(ARGV[1], ARGV[2], ARGV[3], ARGV[4], tonumber(ARGV[5]), ARGV[6])
if ARGV[7] ~= '0' then
  local q = ARGV[1] .. 'q:' .. ARGV[2]
  for _, level in ipairs({':high', ':normal', ':low'}) do
    redis.call('PEXPIRE', q .. level, ARGV[7])
    redis.call('PEXPIRE', q .. level .. ':front', ARGV[7])
  end
  redis.call('PEXPIRE', q .. ':delayed', ARGV[7])
  redis.call('PEXPIRE', q .. ':delayed:messages', ARGV[7])
end

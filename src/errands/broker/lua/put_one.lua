-- Put one message. Needs fair.lua and put.lua.
--
-- ARGV  1-6 as put()   7 ms after which the queue's keys expire unused; 0: never
put(ARGV[1], ARGV[2], ARGV[3], ARGV[4], tonumber(ARGV[5]), ARGV[6])
if ARGV[7] ~= '0' then
  local q = ARGV[1] .. 'q:' .. ARGV[2]
  local endings = {'', ':front', ':fair', ':fair:turns', ':fair:tenants', ':fair:clock'}
  for _, level in ipairs({':high', ':normal', ':low'}) do
    for _, ending in ipairs(endings) do redis.call('PEXPIRE', q .. level .. ending, ARGV[7]) end
  end
  redis.call('PEXPIRE', q .. ':delayed', ARGV[7])
  redis.call('PEXPIRE', q .. ':delayed:messages', ARGV[7])
end

-- How many entries of a stream follow a position, counted on the server so that none has to travel.
--
-- KEYS  1 stream
-- ARGV  1 id of the last entry that was read
--       2 how many entries were ever written up to that one, -1 where nobody knows
--       3 most entries to count one by one
-- Reply {how many, id of the first of them or '', the server's time in milliseconds}
local time = redis.call('TIME')
local now = time[1] * 1000 + math.floor(time[2] / 1000)
local first = redis.call('XRANGE', KEYS[1], '(' .. ARGV[1], '+', 'COUNT', 1)[1]
if not first then return {0, '', now} end
local read = tonumber(ARGV[2])
if read >= 0 then
  -- Redis counts what was ever written since version 7.
  local info = redis.call('XINFO', 'STREAM', KEYS[1])
  for i = 1, #info, 2 do
    if info[i] == 'entries-added' and info[i + 1] > read then return {info[i + 1] - read, first[1], now} end
  end
end
return {#redis.call('XRANGE', KEYS[1], '(' .. ARGV[1], '+', 'COUNT', ARGV[3]), first[1], now}

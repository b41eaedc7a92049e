-- How many entries of a stream follow a position, counted on the server so that none has to travel.
--
-- KEYS  1 stream
-- ARGV  1 id of the last entry that was read   2 most entries to count
-- Reply {how many, id of the first of them or '', the server's time in milliseconds}
local rows = redis.call('XRANGE', KEYS[1], '(' .. ARGV[1], '+', 'COUNT', ARGV[2])
local time = redis.call('TIME')
return {#rows, rows[1] and rows[1][1] or '', time[1] * 1000 + math.floor(time[2] / 1000)}

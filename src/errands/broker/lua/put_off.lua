-- Put an entry of a stream off that came to a worker before it is due. Needs moves.lua, fair.lua and put.lua.
--
-- ARGV  1 prefix of keys   2 queue   3 level   4 stream   5 id of the entry   6 due, as for put()   7 member
local row = redis.call('XRANGE', ARGV[4], ARGV[5], ARGV[5])[1]
if row then
  put(ARGV[1], ARGV[2], ARGV[3], field(row[2], 'm'), tonumber(ARGV[6]), ARGV[7])
  drop(ARGV[4], {ARGV[5]})
end

-- Make dead letters of entries that are no messages. Needs moves.lua.
--
-- ARGV  1 most dead letters   2… stream, id and reason of each
for i = 2, #ARGV, 3 do
  local row = redis.call('XRANGE', ARGV[i], ARGV[i + 1], ARGV[i + 1])[1]
  if row then
    bury(ARGV[i], ARGV[i + 1], row[2], ARGV[i + 2], field(row[2], 'n') or '0', ARGV[1])
  end
end

-- Give entries back, then acknowledge others. Needs moves.lua.
--
-- ARGV  1 most rescues   2 most dead letters   3 number of entries to give back
--       4… stream and id of each; then for acknowledge()
local i = 4
for _ = 1, tonumber(ARGV[3]) do
  give_back(ARGV[i], ARGV[i + 1], 0, tonumber(ARGV[1]), ARGV[2])
  i = i + 2
end
acknowledge(ARGV, i)

-- Take from a rate in the middle of a run (`run.allow`). Behind limits.lua.
--
-- ARGV  1 prefix of keys   2 the rule, as JSON: suffix, how much, most, period in µs
-- Reply how much was given, ms: all that was asked for (where the limit is lower than that by now, all of the
--       limit) and 0, or nothing and the ms after which to ask again
local context = {prefix = ARGV[1]}
local rule, now = rule_of(context, cjson.decode(ARGV[2]), ''), microseconds(context)
rule.cost = math.min(rule.cost, rule.most)
if fits(rule, now, true) then
  take(rule, now, '')
  return {rule.cost, 0}
end
return {0, come_again(rule, now)}

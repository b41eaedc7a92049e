-- Ask or note something about a due time, where the message is not ours to write. Behind schedule.lua.
--
-- ARGV  1 prefix of keys   2 'ask', 'note' (whatever may_send says, but for the fence)   3 asked, as JSON
-- Reply verdict, run that there is already or that is open
local context, asked = {prefix = ARGV[1]}, cjson.decode(ARGV[3])
if ARGV[2] == 'ask' then return {may_send(context, asked)} end
if redis.call('GET', context.prefix .. 'leader') ~= asked.lead then return {'fenced', ''} end
note_sent(context, asked, '')
return {'ok', ''}

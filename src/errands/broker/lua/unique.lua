-- claim(context, run, unique): may this run be accepted, or is one like it there already?
local function claim(context, run, unique)
  return 'ok'
end

-- admit(context, run, rules): may an attempt at this run start now? The name of the limit that says no, or nil.
local function admit(context, run, rules)
  return nil
end

-- let_go(context, run, slots): an attempt has ended; others may have the slots that it held.
local function let_go(context, run, slots)
end

-- write_event(context, event, attempt): one entry in the stream of events, `n` being the run's attempt at that time.
--
-- The stream is kept to its most entries by the first event of a call: trimming with each costs a fifth of writing it.
local function write_event(context, event, attempt)
  if context.trimmed then
    redis.call('XADD', context.events, '*', 'e', event, 'n', attempt)
  else
    redis.call('XADD', context.events, 'MAXLEN', '~', context.events_max, '*', 'e', event, 'n', attempt)
    context.trimmed = true
  end
end

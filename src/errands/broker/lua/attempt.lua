-- A run's newest attempt, in one field of its hash: the hop of its message, its number, the lease of its worker. One
-- field is compared in one step, and read in one: each more costs the server a microsecond with every event.
local function attempt_as(hop, number, lease)
  return hop .. ' ' .. number .. ' ' .. lease
end

-- attempt_of(at): hop (-1 before the first attempt), number (0), lease ('').
local function attempt_of(at)
  local hop, number, lease = string.match(at or '', '^(%S+) (%S+) (.*)$')
  return tonumber(hop or '-1'), tonumber(number or '0'), lease or ''
end

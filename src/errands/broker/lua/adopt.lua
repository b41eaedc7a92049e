-- adopt(…): messages of the stock transport's lists move into the streams. Needs put.lua.
--
-- The priority in the message counts, not the list: 9 goes first here, as Celery's documentation has it, while
-- the lists of the stock transport begin with 0. A message that is not due yet is delayed.
local STEPS = {'', '3', '6', '9'}

local function level_of(priority)
  if priority >= 7 then return 'high' end
  if priority >= 1 and priority <= 3 then return 'low' end
  return 'normal'
end

-- An ISO time as ms since 1970; 0 when it cannot be read. Without a zone it is UTC.
local function ms_of(text)
  local year, month, day, hour, minute, second, rest =
    string.match(text, '^(%d%d%d%d)%-(%d%d)%-(%d%d)[T ](%d%d):(%d%d):(%d%d)(.*)$')
  if not year then return 0 end
  local fraction, zone = string.match(rest, '^(%.?%d*)(.*)$')
  local sign, hours, minutes = string.match(zone, '^([+-])(%d%d):?(%d%d)')
  local offset = 0
  if sign then offset = (tonumber(hours) * 60 + tonumber(minutes)) * (sign == '-' and -1 or 1) end
  -- Days since 1970 of a date, counted in years that begin with March.
  local y, m = tonumber(year), tonumber(month)
  if m <= 2 then y, m = y - 1, m + 12 end
  local days = 365 * y + math.floor(y / 4) - math.floor(y / 100) + math.floor(y / 400)
    + math.floor((153 * (m - 3) + 2) / 5) + tonumber(day) - 719469
  local seconds = days * 86400 + tonumber(hour) * 3600 + tonumber(minute) * 60 + tonumber(second) - offset * 60
  return seconds * 1000 + math.floor((tonumber('0' .. fraction) or 0) * 1000)
end

-- Reply true when there may be more.
local function adopt(prefix, queue, list, separator, limit, now)
  local more = false
  for _, step in ipairs(STEPS) do
    local key = step == '' and list or list .. separator .. step
    local raws = redis.pcall('RPOP', key, limit)
    if raws and not raws.err then
      for _, raw in ipairs(raws) do
        local ok, message = pcall(cjson.decode, raw)
        local properties = ok and type(message) == 'table' and message.properties
        local headers = ok and type(message) == 'table' and message.headers
        local priority = type(properties) == 'table' and tonumber(properties.priority) or 0
        local eta = type(headers) == 'table' and type(headers.eta) == 'string' and ms_of(headers.eta) or 0
        local id = type(headers) == 'table' and type(headers.id) == 'string' and headers.id or ''
        local ours = type(headers) == 'table' and headers.errands
        local tenant = type(ours) == 'table' and type(ours.fair) == 'string' and '\1' .. ours.fair or ''
        put(prefix, queue, level_of(priority) .. tenant, raw, eta > now and eta or 0, id)
      end
      more = more or #raws == limit
    end
  end
  return more
end

-- Counters and their windows, each kept as one hash. Times are whole microseconds since the epoch.
--
-- KEYS[1] belongs to the store as a whole: its generation, and the latest time that it has seen. `now` never goes back.
-- Then what `take_over.lua` says of servers that take over from each other: who counts, and what might be forgotten. Last
-- when somebody looked whether keys are dropped.

local SECOND, DAY = 1000000, 86400000000
local MONDAY = 4 * DAY -- 1970-01-05
local POINTS, LOOK_AHEAD, MOST = 16384, 1024, 512

local store = redis.call('HMGET', KEYS[1], 'generation', 'latest', 'reign', 'doubt', 'looked')
local clock = redis.call('TIME')
local wall = clock[1] * SECOND + clock[2]
local now = max(wall, tonumber(store[2] or 0))

-- Days from the epoch to the end of the month that holds a day. Years begin in March here: a leap day is their last.
local function month_end(day)
  local shifted = day + 719468
  local era = floor(shifted / 146097)
  local of_era = shifted - era * 146097
  local year = floor((of_era - floor(of_era / 1460) + floor(of_era / 36524) - floor(of_era / 146096)) / 365)
  local function start(years)
    return 365 * years + floor(years / 4) - floor(years / 100) + floor(years / 400)
  end
  local month = floor((5 * (of_era - start(year)) + 2) / 153)
  local following = month == 11 and start(year + 1) or start(year) + floor((153 * (month + 1) + 2) / 5)
  return following + era * 146097 - 719468
end

-- When a window that contains a moment ends. `edge`: `epoch`, to which windows align, or `week` or `month` for those of
-- the calendar, or `first` for one that begins at that moment.
local function window_end(moment, length, edge)
  if edge == 'month' then
    return month_end(floor(moment / DAY)) * DAY
  elseif edge == 'first' then
    return moment + length
  end
  return moment - fmod(moment - (edge == 'week' and MONDAY or 0), length) + length
end

-- The key goes at that time, or up to two milliseconds later. Redis counts by its own clock, `now` or behind it.
local function expire(key, at)
  redis.call('PEXPIRE', key, text(floor((at - wall) / 1000) + 2))
end

-- Each kind of counter reads itself from its hash (`key`, `length` and `edge` of its window are known) and then has a
-- `value`; `kept` tells whether it was there at all.
local read = {}

-- A window with an end: `value` counts until `ends`.
function read.fixed(counter)
  local kept = redis.call('HMGET', counter.key, 'ends', 'value')
  counter.kept = kept[1]
  if kept[1] and now < tonumber(kept[1]) then
    counter.ends, counter.value = tonumber(kept[1]), kept[2]
  else
    counter.ends, counter.value, counter.fresh = window_end(now, counter.length, counter.edge), '0', true
  end
end

local function point_of(entry)
  local point, amount = match(entry, '^(%d+) (.+)$')
  return tonumber(point), amount
end

-- The entries of a moving window from one number to another.
local function entries_of(key, first, last)
  local numbers = {}
  for number = first, last do
    numbers[#numbers + 1] = number
  end
  return redis.call('HMGET', key, unpack(numbers)), numbers
end

-- Every point in time of the last window, with what was charged then: entries `<when it stops counting> <amount>`,
-- numbered from `head` to `tail`, and their sum. Points lie on a grid and are rounded up to it, so that there are not
-- too many: a charge counts for up to 1/16384 of the window too long, and never too short.
function read.moving(counter)
  local kept = redis.call('HMGET', counter.key, 'head', 'tail', 'value')
  counter.head, counter.tail, counter.value, counter.last = 1, 0, '0', 0
  if not kept[1] then
    return
  end
  local head, tail = tonumber(kept[1]), tonumber(kept[2])
  local edges = redis.call('HMGET', counter.key, head, tail)
  local last, amount = point_of(edges[2])
  if last <= now then
    redis.call('UNLINK', counter.key)
    return
  end
  counter.kept, counter.head, counter.tail, counter.value = true, head, tail, kept[3]
  counter.last, counter.last_amount, counter.first = last, amount, point_of(edges[1])
  local batch = 2 -- mostly one goes when one comes
  while counter.first <= now do
    local gone, value = {}, counter.value
    local entries, numbers = entries_of(counter.key, counter.head, min(counter.head + batch - 1, tail))
    batch = min(4 * batch, MOST)
    for at, entry in ipairs(entries) do
      local point, lost = point_of(entry)
      if point > now then
        counter.first = point
        break
      end
      gone[at], value, counter.head = numbers[at], minus(value, lost), numbers[at] + 1
    end
    if gone[1] then
      redis.call('HDEL', counter.key, unpack(gone))
      redis.call('HSET', counter.key, 'head', counter.head, 'value', value)
      counter.value = value
    end
  end
end

-- Two fixed windows; the one `before` counts with the share of it that the last window still covers.
function read.sliding(counter)
  local past = fmod(now, counter.length)
  local index = (now - past) / counter.length
  local kept = redis.call('HMGET', counter.key, 'index', 'before', 'value')
  counter.kept, counter.rest, counter.index = kept[1], counter.length - past, index
  counter.before, counter.current, counter.fresh = '0', '0', true
  if kept[1] and tonumber(kept[1]) == index then
    counter.before, counter.current, counter.fresh = kept[2], kept[3], false
  elseif kept[1] and tonumber(kept[1]) == index - 1 then
    counter.before = kept[3]
  end
  counter.value = plus(counter.current, share(counter.before, counter.rest, counter.length))
end

-- Charge all or nothing.
--
-- KEYS[2] and on: counters. ARGV[1]: words. The generation that the caller knows (or `-`), one to begin with where there
-- is none, the most keys there may be, and `1` or `0` for whether nothing may be charged that a server which takes over
-- might not know of; then for each counter its kind, the length and edge of its window and what is added; then for each
-- charge the number of its counter, its limit (`-`: nothing fits, `+`: everything does), and `1` or `0` for whether the
-- limit itself fits and whether the charge is in shadow mode.
--
-- Answers a text where all was charged and no limit was passed: the generation, the reign or `-`, then for each counter
-- where it was added and what it then held. Else {generation} if it is not the known one, or {generation or `-`, a word
-- and what it is about}; or {generation, {charge, value, wait} for each limit that is passed, marks as above}: microseconds, -1
-- where it never fits. No marks: nothing was charged. Words: `reign` where `take_over.lua` must be run first, `doubt` where
-- charges may have been forgotten that count for so many microseconds, `drops` where Redis drops keys by this policy,
-- `full`.

local words = {}
for word in string.gmatch(ARGV[1], '%S+') do
  words[#words + 1] = word
end
local known, generation, most, strict = words[1], store[1] or words[2], tonumber(words[3]), words[4] == '1'
local own = strict and reign() or '-'
if strict and store[3] ~= own then
  return {'-', 'reign', own}
end
if now - tonumber(store[5] or 0) >= SECOND then
  -- Not a matter for every charge. Whoever hides it from us knows what Redis does.
  local info = redis.pcall('INFO', 'memory')
  local policy = type(info) == 'string' and match(info, 'maxmemory_policy:(%S+)') or 'noeviction'
  if policy ~= 'noeviction' and not find(info, 'maxmemory:0%s') then
    return {'-', 'drops', policy}
  end
  redis.call('HSET', KEYS[1], 'looked', text(now))
end
redis.call('HSET', KEYS[1], 'generation', generation, 'latest', text(now))
if known ~= '-' and known ~= generation then
  return {generation}
end

local function fits(charge, value)
  if charge.limit == '-' or charge.limit == '+' then
    return charge.limit == '+'
  end
  local difference = compare(value, charge.limit)
  return difference < 0 or (difference == 0 and charge.inclusive)
end

-- Microseconds until a charge fits if nothing else is charged meanwhile. An empty counter has room for it.
local wait = {}

function wait.fixed(counter)
  return counter.ends - now
end

function wait.moving(counter, charge)
  local value, first, batch = counter.value, counter.head, 2
  local beyond = min(counter.tail, counter.head + LOOK_AHEAD - 1) + 1
  while first < beyond do
    for _, entry in ipairs((entries_of(counter.key, first, min(first + batch, beyond) - 1))) do
      local point, amount = point_of(entry)
      value = minus(value, amount)
      if fits(charge, plus(value, counter.added)) then
        return point - now
      end
    end
    first, batch = first + batch, min(4 * batch, MOST)
  end
  return counter.last - now
end

-- The largest rest of a window, at most `most`, at which the share of `before` fits beside `value`.
local function largest_rest(counter, charge, before, value, longest)
  local low, high = 0, longest
  while low < high do
    local middle = floor((low + high + 1) / 2)
    if fits(charge, plus(plus(value, share(before, middle, counter.length)), counter.added)) then
      low = middle
    else
      high = middle - 1
    end
  end
  return low
end

function wait.sliding(counter, charge)
  if fits(charge, plus(counter.current, counter.added)) then
    return counter.rest - largest_rest(counter, charge, counter.before, counter.current, counter.rest)
  end
  return counter.rest + counter.length - largest_rest(counter, charge, counter.current, '0', counter.length)
end

-- Each adds to its counter and answers where, for a refund.
local add = {}

function add.fixed(counter)
  local ends = text(counter.ends)
  redis.call('HSET', counter.key, 'ends', ends, 'value', counter.after)
  if counter.fresh then
    expire(counter.key, counter.ends)
  end
  return ends
end

function add.moving(counter)
  local grain = max(1, floor(counter.length / POINTS))
  local point, amount = now - fmod(now, grain) + grain + counter.length, counter.added
  if counter.last == point then
    amount = plus(counter.last_amount, amount)
  else
    counter.tail = counter.tail + 1
  end
  local entry = text(point) .. ' ' .. amount
  redis.call('HSET', counter.key, 'head', counter.head, 'tail', counter.tail, 'value', counter.after, counter.tail, entry)
  expire(counter.key, point)
  return counter.tail .. ':' .. text(point)
end

function add.sliding(counter)
  local index = text(counter.index)
  local current = plus(counter.current, counter.added)
  redis.call('HSET', counter.key, 'index', index, 'before', counter.before, 'value', current)
  if counter.fresh then
    expire(counter.key, (counter.index + 2) * counter.length)
  end
  return index
end

-- Until when what was charged before a moment counts.
local function settled(counter, moment)
  if counter.kind == 'fixed' then
    return window_end(moment, counter.length, counter.edge)
  elseif counter.kind == 'moving' then
    return moment + counter.length
  end
  return (floor(moment / counter.length) + 2) * counter.length
end

local doubt = strict and tonumber(store[4])
local counters, new, at = {}, 0, 5
for number = 2, #KEYS do
  local counter = {key = KEYS[number], kind = words[at], length = tonumber(words[at + 1]), edge = words[at + 2]}
  counter.added = words[at + 3]
  read[counter.kind](counter)
  counter.after = plus(counter.value, counter.added)
  if not counter.kept and counter.added ~= '0' then
    new = new + 1
  end
  counters[number - 1], at = counter, at + 4
end

local passed, refused, unsettled = {}, false, 0
for first = at, #words, 4 do
  local counter = counters[tonumber(words[first])]
  local charge = {limit = words[first + 1], inclusive = words[first + 2] == '1'}
  if not fits(charge, counter.after) then
    local waiting = fits(charge, counter.added) and wait[counter.kind](counter, charge) or -1
    refused = words[first + 3] == '0'
    passed[#passed + 1] = {(first - at) / 4, counter.value, waiting}
    if refused then
      break
    end
  elseif doubt and words[first + 3] == '0' and charge.limit ~= '+' then
    unsettled = max(unsettled, settled(counter, doubt) - now)
  end
end

if refused then
  return {generation, passed, ''}
end
if unsettled > 0 then
  return {generation, 'doubt', unsettled}
end
if new > 0 and redis.call('DBSIZE') - 1 + new > most then
  return {generation, 'full', most}
end
local marks = {generation, own}
for _, counter in ipairs(counters) do
  marks[#marks + 1] = counter.added ~= '0' and add[counter.kind](counter) or '-'
  marks[#marks + 1] = counter.after
end
local answer = table.concat(marks, ' ')
return passed[1] and {generation, passed, answer} or answer

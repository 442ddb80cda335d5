-- Exact numbers as texts such as `12` or `0.50`: no sign, no exponent, no leading zeros.
--
-- Lua's own numbers are doubles. They serve for times and for whole numbers below 2^53, never for what might not fit.

local find, format, match, rep, sub = string.find, string.format, string.match, string.rep, string.sub
local floor, fmod, max, min = math.floor, math.fmod, math.max, math.min

local CHUNK = 14 -- digits: two such numbers and a carry add up exactly
local EXACT = 2 ^ 53

-- A whole number of Lua as a text.
local function text(number)
  return format('%.0f', number)
end

-- The number as a double, if that is exact and stays so when another such number is added.
local function small(number)
  return #number <= CHUNK and not find(number, '.', 1, true) and tonumber(number)
end

-- The digits of two numbers, padded to equal lengths, and how many of them stand behind the point.
local function align(a, b)
  local whole_a, part_a = match(a, '^(%d+)%.?(%d*)$')
  local whole_b, part_b = match(b, '^(%d+)%.?(%d*)$')
  local before, behind = max(#whole_a, #whole_b), max(#part_a, #part_b)
  local digits_a = rep('0', before - #whole_a) .. whole_a .. part_a .. rep('0', behind - #part_a)
  local digits_b = rep('0', before - #whole_b) .. whole_b .. part_b .. rep('0', behind - #part_b)
  return digits_a, digits_b, behind
end

-- The number with these digits, `behind` of them behind the point.
local function number_of(digits, behind)
  local whole = match(sub(digits, 1, #digits - behind), '^0*(%d+)$')
  return behind == 0 and whole or whole .. '.' .. sub(digits, -behind)
end

-- a + sign * b for digits of equal length: digits, and what is left to carry to the left of them (1, 0 or -1).
local function add_digits(a, b, sign)
  local digits, carry = '', 0
  for last = #a, 1, -CHUNK do
    local first = max(last - CHUNK + 1, 1)
    local base = 10 ^ (last - first + 1)
    local sum = tonumber(sub(a, first, last)) + sign * tonumber(sub(b, first, last)) + carry
    carry = floor(sum / base)
    digits = format('%0' .. (last - first + 1) .. '.0f', sum - carry * base) .. digits
  end
  return digits, carry
end

local function plus(a, b)
  local x, y = small(a), small(b)
  if x and y then
    return text(x + y)
  end
  local digits_a, digits_b, behind = align(a, b)
  local digits, carry = add_digits(digits_a, digits_b, 1)
  return number_of(carry .. digits, behind)
end

-- The difference, at least 0.
local function minus(a, b)
  local x, y = small(a), small(b)
  if x and y then
    return text(max(x - y, 0))
  end
  local digits_a, digits_b, behind = align(a, b)
  local digits, carry = add_digits(digits_a, digits_b, -1)
  if carry < 0 or not find(digits, '[1-9]') then
    return '0'
  end
  return number_of(digits, behind)
end

-- Below 0, 0 or above 0, as a is less than, equal to or more than b.
local function compare(a, b)
  local x, y = small(a), small(b)
  if x and y then
    return x - y
  end
  local digits_a, digits_b = align(a, b)
  for first = 1, #digits_a, CHUNK do
    local difference = tonumber(sub(digits_a, first, first + CHUNK - 1)) - tonumber(sub(digits_b, first, first + CHUNK - 1))
    if difference ~= 0 then
      return difference
    end
  end
  return 0
end

-- amount * rest / whole as a whole number, for 0 <= rest <= whole below 2^48. A whole amount is rounded down, another up.
local function share(amount, rest, whole)
  local few = small(amount)
  if few and few * rest < EXACT then
    local product = few * rest
    return text((product - fmod(product, whole)) / whole)
  end
  local before, behind = match(amount, '^(%d+)%.?(%d*)$')
  -- Long division, digit by digit of the amount. A digit of the quotient may be up to 18 until it is carried.
  local digits, remainder = before .. behind, 0
  local quotient = {}
  for at = 1, #digits do
    local sum = remainder * 10 + tonumber(sub(digits, at, at)) * rest
    remainder = fmod(sum, whole)
    quotient[at] = (sum - remainder) / whole
  end
  for at = #digits, 2, -1 do
    if quotient[at] >= 10 then
      quotient[at], quotient[at - 1] = quotient[at] - 10, quotient[at - 1] + 1
    end
  end
  local result = table.concat(quotient)
  local floored = number_of(sub(result, 1, #before), 0)
  if behind ~= '' and (remainder > 0 or find(result, '[1-9]', #before + 1)) then
    return plus(floored, '1')
  end
  return floored
end

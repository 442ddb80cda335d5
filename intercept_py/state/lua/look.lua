-- What a counter holds: for the strategies of the `limits` library, which ask before and after they charge.
--
-- KEYS[2]: the counter. ARGV: its kind and the length of its window. Answers {now, value, more ...}; `more` is when a
-- fixed window ends, when the first entry of a moving window stops counting, or what each of the two sliding windows holds.

local counter = {key = KEYS[2], length = tonumber(ARGV[2]), edge = 'first'}
read[ARGV[1]](counter)
if ARGV[1] == 'fixed' then
  return {now, counter.value, counter.fresh and now or counter.ends}
elseif ARGV[1] == 'moving' then
  return {now, counter.value, counter.first or now + counter.length}
end
return {now, counter.value, counter.before, counter.current}

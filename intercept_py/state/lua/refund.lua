-- Take charges back from the windows that they were made in. The caller does so once.
--
-- KEYS[1]: the store's own, KEYS[2] and on: counters. ARGV: the generation and the reign in which they were charged; then
-- for each counter its kind, the mark that charging answered, and the amount.

-- A store that has lost its counters may have a new one in the same window: nothing was charged to that. And a server that
-- has taken over might not know of the charge.
if redis.call('HGET', KEYS[1], 'generation') ~= ARGV[1] or (ARGV[2] ~= '-' and reign() ~= ARGV[2]) then
  return 0
end

local take = {}

function take.fixed(key, mark, amount)
  local kept = redis.call('HMGET', key, 'ends', 'value')
  if kept[1] == mark then
    redis.call('HSET', key, 'value', minus(kept[2], amount))
  end
end

function take.moving(key, mark, amount)
  local number, point = match(mark, '^(%d+):(%d+)$')
  local kept = redis.call('HMGET', key, number, 'value')
  local at, charged = match(kept[1] or '', '^(%d+) (.+)$')
  if at == point then
    redis.call('HSET', key, number, point .. ' ' .. minus(charged, amount), 'value', minus(kept[2], amount))
  end
end

function take.sliding(key, mark, amount)
  local kept = redis.call('HMGET', key, 'index', 'before', 'value')
  if kept[1] == mark then
    redis.call('HSET', key, 'value', minus(kept[3], amount))
  elseif kept[1] and tonumber(kept[1]) == tonumber(mark) + 1 then
    redis.call('HSET', key, 'before', minus(kept[2], amount))
  end
end

for number = 2, #KEYS do
  local at = 3 * number - 3
  take[ARGV[at]](KEYS[number], ARGV[at + 1], ARGV[at + 2])
end
return #KEYS - 1

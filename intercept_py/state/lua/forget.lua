-- Forget counters. KEYS[1]: the store's own. With a KEYS[2]: that counter and all that follow. With `*` in ARGV:
-- everything of the store. Answers how many keys there were.

if KEYS[2] then
  return redis.call('UNLINK', unpack(KEYS, 2))
end
local cursor, count = '0', 0
local pattern = string.gsub(KEYS[1], '[%[%]*?\\^-]', '\\%0') .. ARGV[1]
repeat
  local found = redis.call('SCAN', cursor, 'MATCH', pattern, 'COUNT', 1000)
  cursor = found[1]
  for _, key in ipairs(found[2]) do
    count = count + redis.call('UNLINK', key)
  end
until cursor == '0'
return count

-- The names of the counters in a store, some at a time. KEYS[1]: the store's own. ARGV: where to go on, `0` at first.
-- Answers where to go on, `0` at the end, and names, now and then one twice.

local pattern = string.gsub(KEYS[1], '[%[%]*?\\^-]', '\\%0') .. '*'
return redis.call('SCAN', ARGV[1], 'MATCH', pattern, 'COUNT', 1000)

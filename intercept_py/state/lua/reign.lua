-- Servers that take over from each other: each counts in a reign of its own, and what it charged before the next one took
-- over might be unknown to that. Redis itself names reigns: a server has another replication id whenever it becomes the
-- primary, be it that it has started or taken over.

local function reign()
  return string.match(redis.call('INFO', 'replication'), 'master_replid:(%x+)')
end

-- Have this server count, which is not the one that did before.
--
-- KEYS[1]: the store's own. ARGV[1]: the generation that the caller knows (or `-`). ARGV[2]: `-` at first; then, once as
-- many replicas have what that wrote as must have every charge, what it answered. From that moment no other server can
-- have as many, so nothing that is charged elsewhere counts: all that might be forgotten was charged before now.
--
-- Answers the reign of this server, or `-` where it has counted already, and in the end always.

local store = redis.call('HMGET', KEYS[1], 'generation', 'reign')
local own = reign()
if store[2] == own then
  return '-'
elseif ARGV[2] ~= own then
  redis.call('HSET', KEYS[1], 'claim', own)
  return own
end
redis.call('HSET', KEYS[1], 'reign', own)
if store[1] or ARGV[1] ~= '-' then -- else nobody has ever counted
  redis.call('HSET', KEYS[1], 'doubt', text(now))
end
return '-'

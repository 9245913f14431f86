-- A service has asked for peace by Retry-After: its background queue is held until then, see turn.lua. The longest wish holds.
--
-- ARGV: prefix, breaker's key, ms
-- Returns the ms for which it is held now.

local breaker, wish = P .. 'breaker:' .. ARGV[2], NOW + tonumber(ARGV[3])
local hold = math.max(wish, tonumber(redis.call('HGET', breaker, 'hold') or 0))
work_without_memory()  -- one field for each service, and what it asks for is less work
redis.call('HSET', breaker, 'hold', whole(hold))
return hold - NOW

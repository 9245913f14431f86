-- The supervisor's round over one queue: calls of dead workers go back, calls that are past their time end, old dead
-- letters are forgotten. Whatever a fetch would do too, for queues that nobody fetches.
--
-- ARGV: prefix, queue, lease ms, poison after n deaths, the most of each to treat, lifetime of a dead letter ms
-- Returns {returned, poisoned, expired, forgotten}.

local queue, lease, poison, limit, lifetime = ARGV[2], tonumber(ARGV[3]), tonumber(ARGV[4]), ARGV[5], tonumber(ARGV[6])
local Q = base(queue)
local returned, poisoned, expired = 0, 0, 0

work_without_memory()
if touch(lease) then
  returned, poisoned = reap(queue, Q, poison, limit)
end
expired = expire_overdue(queue, Q, limit)
redis.call('ZREMRANGEBYSCORE', Q .. 'ended', '-inf', whole(NOW))
local old = redis.call('ZRANGEBYSCORE', Q .. 'dead', '-inf', whole(NOW - lifetime), 'LIMIT', 0, limit)
for _, id in ipairs(old) do
  redis.call('ZREM', Q .. 'dead', id)
  redis.call('HDEL', Q .. 'dead:msg', id)
  redis.call('HDEL', Q .. 'dead:prog', id)
  redis.call('HDEL', Q .. 'dead:why', id)
end
return { returned, poisoned, expired, #old }

-- A worker's heartbeat: it is alive, it serves these queues, it still works on these calls.
--
-- ARGV: prefix, worker id, its report ('' once it has said goodbye), lifetime of the report ms, lease ms, number of queues,
--       their names, number of deliveries, then for each: queue, id, token
-- Returns the positions (from 1) of deliveries that are no longer this worker's.

local worker, report, lifetime, lease = ARGV[2], ARGV[3], ARGV[4], tonumber(ARGV[5])
work_without_memory()
touch(lease)
if report ~= '' then
  redis.call('SET', P .. 'worker:' .. worker, report, 'PX', lifetime)
  redis.call('ZADD', P .. 'workers', whole(NOW), worker)
end
redis.call('ZREMRANGEBYSCORE', P .. 'workers', '-inf', whole(NOW - tonumber(lifetime)))

local at = 6
for position = 1, tonumber(ARGV[at]) do
  local queue = ARGV[at + position]
  redis.call('ZADD', base(queue) .. 'serving', whole(NOW), worker)
  redis.call('ZREMRANGEBYSCORE', base(queue) .. 'serving', '-inf', whole(NOW - SILENT_MS))
  redis.call('ZREMRANGEBYSCORE', base(queue) .. 'ended', '-inf', whole(NOW))
  redis.call('SADD', P .. 'queues', queue)
end
at = at + tonumber(ARGV[at]) + 1

local stale = {}
for position = 1, tonumber(ARGV[at]) do
  local Q, id, token = base(ARGV[at + 1]), ARGV[at + 2], ARGV[at + 3]
  at = at + 3
  if token_of(Q, id) == token and redis.call('ZSCORE', Q .. 'lease', id) then
    redis.call('ZADD', Q .. 'lease', lease_until(lease, position), id)
  else
    stale[#stale + 1] = position
  end
end
return stale

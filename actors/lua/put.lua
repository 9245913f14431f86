-- Accept one call. Idempotent by id: a call that waits or runs, or a background call that has just ended, is not accepted
-- twice.
--
-- ARGV: prefix, queue, id, payload, delay ms (0: now), expires in ms (0: never), coalesce key ('': none), cap (0: none)
-- Returns {1 accepted | 0 known already | -1 queue full, workers that serve the queue, id that it replaced or ''}.

local queue, id, payload = ARGV[2], ARGV[3], ARGV[4]
local delay, expires, coalesce, cap = tonumber(ARGV[5]), tonumber(ARGV[6]), ARGV[7], tonumber(ARGV[8])
local Q = base(queue)
local replaced = ''

if redis.call('HEXISTS', Q .. 'msg', id) == 1 or redis.call('EXISTS', P .. 'done:' .. id) == 1 then
  return { 0, workers_serving(Q), '' }
end
local older = coalesce ~= '' and redis.call('HGET', Q .. 'co', coalesce)
if older and redis.call('ZSCORE', Q .. 'lease', older) then
  older = false
end
if cap > 0 and redis.call('HLEN', Q .. 'msg') - (older and 1 or 0) >= cap then
  return { -1, workers_serving(Q), '' }
end
local tried, due = false, false
if older then
  tried, due = redis.call('HGET', Q .. 'prog', older), redis.call('ZSCORE', Q .. 'due', older)
  replace(Q, older)
  replaced = older
end
if coalesce ~= '' then
  redis.call('HSET', Q .. 'co', coalesce, id)
  redis.call('HSET', Q .. 'cokey', id, coalesce)
end
redis.call('HSET', Q .. 'msg', id, payload)
redis.call('SADD', P .. 'queues', queue)
if expires > 0 then
  redis.call('ZADD', Q .. 'exp', whole(NOW + expires), id)
end
if delay > 0 then
  make_due(Q, id, delay)
else
  make_ready(Q, id)
  wake(Q)
end
if tried then
  inherit(Q, id, tried, due and tonumber(due))
end
return { 1, workers_serving(Q), replaced }

-- Hand out calls under a lease: in the order of the queues given, within what each service has free.
--
-- An open breaker pauses its background queue here: nothing is handed out, nothing is counted, and the backlog costs a
-- look at one hash. Only the call that holds the breaker's trial passes.
--
-- ARGV: prefix, lease ms, poison after n deaths, number of groups, free slots of each group, number of queues, then for
--       each queue: its name, its gate (a breaker's key, or ''), the most to take from it, its group (from 1)
-- Returns {now ms, ms until the next due call or -1, {queue, id, token, deaths, payload, progress, trial 0|1}, ...}.

local lease, poison, groups = tonumber(ARGV[2]), tonumber(ARGV[3]), tonumber(ARGV[4])
local free = {}
for group = 1, groups do
  free[group] = tonumber(ARGV[4 + group])
end
local may_reap = touch(lease)
local result = { NOW, -1 }
-- Late calls are dropped as they are met, but only so many at a time: a script must stay short.
local PATIENCE = 200

local function deliver(queue, Q, id, trial)
  local payload = redis.call('HGET', Q .. 'msg', id)
  if not payload then
    return false
  end
  local expires = redis.call('ZSCORE', Q .. 'exp', id)
  if expires and tonumber(expires) <= NOW then
    expire(queue, Q, id)
    return false
  end
  local token = redis.call('HINCRBY', Q .. 'tok', id, 1)
  local deaths = tonumber(redis.call('HGET', Q .. 'deaths', id) or '0')
  redis.call('ZADD', Q .. 'lease', whole(NOW + lease), id)
  result[#result + 1] = { queue, id, token, deaths, payload, redis.call('HGET', Q .. 'prog', id) or '', trial }
  return true
end

local function promote(Q)
  for _, id in ipairs(redis.call('ZRANGEBYSCORE', Q .. 'due', '-inf', whole(NOW), 'LIMIT', 0, 100)) do
    redis.call('ZREM', Q .. 'due', id)
    make_ready(Q, id)
  end
end

local function fetch_trial(queue, Q, id, room)
  if id and id ~= '' and room > 0 and not redis.call('ZSCORE', Q .. 'lease', id) then
    if redis.call('ZREM', Q .. 'ready', id) + redis.call('ZREM', Q .. 'due', id) > 0 and deliver(queue, Q, id, 1) then
      return 1
    end
  end
  return 0
end

local function fetch_ready(queue, Q, room)
  local taken, seen = 0, 0
  promote(Q)
  while taken < room and seen < PATIENCE do
    local popped = redis.call('ZPOPMIN', Q .. 'ready', 1)
    if not popped[1] then
      break
    end
    seen = seen + 1
    if deliver(queue, Q, popped[1], 0) then
      taken = taken + 1
    end
  end
  return taken
end

local function note_next_due(Q)
  local head = redis.call('ZRANGE', Q .. 'due', 0, 0, 'WITHSCORES')
  if head[2] then
    local wait = math.max(0, tonumber(head[2]) - NOW)
    if result[2] < 0 or wait < result[2] then
      result[2] = wait
    end
  end
end

local at = 5 + groups
for _ = 1, tonumber(ARGV[at]) do
  local queue, gate, limit, group = ARGV[at + 1], ARGV[at + 2], tonumber(ARGV[at + 3]), tonumber(ARGV[at + 4])
  at = at + 4
  local Q = base(queue)
  local room = math.min(limit, free[group])
  if may_reap then
    reap(queue, Q, poison, 100)
  end
  local breaker = gate ~= '' and redis.call('HMGET', P .. 'breaker:' .. gate, 'state', 'trial') or {}
  if breaker[1] and breaker[1] ~= 'closed' then
    free[group] = free[group] - fetch_trial(queue, Q, breaker[2], room)
  else
    if room > 0 then
      free[group] = free[group] - fetch_ready(queue, Q, room)
    end
    if redis.call('ZCARD', Q .. 'ready') > 0 then
      wake(Q)
    end
    note_next_due(Q)
  end
end
return result

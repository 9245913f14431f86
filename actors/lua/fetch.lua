-- Hand out calls under a lease: in the order of the queues given, within what each service has free.
--
-- An open breaker pauses its background queue here: nothing is handed out, nothing is counted, and the backlog costs a
-- look at one hash. Only the call that holds the breaker's trial passes, once for each time that the trial is taken.
--
-- An answer may be lost on its way. What it handed out would wait for its lease, and count as a death, though no worker
-- died: so each fetcher says which of its answers it got, and what an unheard one held goes back before anything else.
-- fetched:<fetcher> STRING, MessagePack of {number of the fetch, {queue, id, token}, ...}; expires.
--
-- ARGV: prefix, fetcher's id, number of this fetch (growing), number of the last one that was answered, lease ms,
--       poison after n deaths, number of groups, free slots of each group, number of queues, then for each queue:
--       its name, its gate (a breaker's key, or ''), the most to take from it, its group (from 1)
-- Returns {now ms, ms until the next due call or -1, {queue, id, token, deaths, payload, progress, trial 0|1}, ...}.

local FETCHED = P .. 'fetched:' .. ARGV[2]
local number, answered = tonumber(ARGV[3]), tonumber(ARGV[4])
local lease, poison, groups = tonumber(ARGV[5]), tonumber(ARGV[6]), tonumber(ARGV[7])
local free = {}
for group = 1, groups do
  free[group] = tonumber(ARGV[7 + group])
end
work_without_memory()
local may_reap = touch(lease)
local result = { NOW, -1 }
-- Late calls are dropped as they are met, but only so many at a time: a script must stay short.
local PATIENCE = 200
-- Milliseconds for which a fetch is remembered: longer than a lease, after which its calls go back anyway.
local FETCHED_MS = 60000

local function take_back_what_was_not_heard()
  local last = redis.call('GET', FETCHED)
  last = last and cmsgpack.unpack(last)
  if not last or last[1] <= answered then
    return
  end
  redis.call('DEL', FETCHED)
  for position = #last, 2, -1 do
    local queue, id, token = unpack(last[position])
    local Q = base(queue)
    if redis.call('HGET', Q .. 'tok', id) == whole(token) and redis.call('ZREM', Q .. 'lease', id) == 1 then
      make_first(Q, id)
    end
  end
end

local function remember()
  local handed_out = { number }
  for position = 3, #result do
    local queue, id, token = unpack(result[position], 1, 3)
    handed_out[#handed_out + 1] = { queue, id, token }
  end
  if #handed_out > 1 then
    redis.call('SET', FETCHED, cmsgpack.pack(handed_out), 'PX', FETCHED_MS)
  end
end

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
  redis.call('ZADD', Q .. 'lease', lease_until(lease, #result), id)
  result[#result + 1] = { queue, id, token, deaths, payload, redis.call('HGET', Q .. 'prog', id) or '', trial }
  return true
end

local function promote(Q)
  local due = redis.call('ZRANGEBYSCORE', Q .. 'due', '-inf', whole(NOW), 'WITHSCORES', 'LIMIT', 0, 100)
  for position = 1, #due, 2 do
    make_due_ready(Q, due[position], tonumber(due[position + 1]))
  end
end

-- The breaker's field is this script's ticket, good for one delivery: should the worker die, the trial has failed.
local function fetch_trial(queue, Q, breaker, id, room)
  if id and id ~= '' and room > 0 and not redis.call('ZSCORE', Q .. 'lease', id) then
    if redis.call('ZREM', Q .. 'ready', id) + redis.call('ZREM', Q .. 'due', id) > 0 and deliver(queue, Q, id, 1) then
      redis.call('HSET', breaker, 'trial', '')
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

take_back_what_was_not_heard()
local at = 8 + groups
for _ = 1, tonumber(ARGV[at]) do
  local queue, gate, limit, group = ARGV[at + 1], ARGV[at + 2], tonumber(ARGV[at + 3]), tonumber(ARGV[at + 4])
  at = at + 4
  local Q = base(queue)
  local room = math.min(limit, free[group])
  if may_reap then
    reap(queue, Q, poison, 100)
  end
  local breaker = P .. 'breaker:' .. gate
  local state = gate ~= '' and redis.call('HMGET', breaker, 'state', 'trial') or {}
  if state[1] and state[1] ~= 'closed' then
    free[group] = free[group] - fetch_trial(queue, Q, breaker, state[2], room)
  else
    local left = room
    if room > 0 then
      left = room - fetch_ready(queue, Q, room)
      free[group] = free[group] - (room - left)
    end
    -- What is left behind is for the next fetcher. So is the timer for what is due later, once there is no room here.
    if redis.call('ZCARD', Q .. 'ready') > 0 or (limit > 0 and left <= 0 and redis.call('ZCARD', Q .. 'due') > 0) then
      wake(Q)
    end
    if left > 0 then
      note_next_due(Q)
    end
  end
end
remember()
return result

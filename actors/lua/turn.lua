-- A worker's turn: say that a call is over, and take what may start now, in one step.
--
-- Ending. A delivery is acknowledged and its caller answered. Idempotent by (id, token): for an older delivery, or said
-- again, it changes nothing. (What becomes of a call that is not over: again.lua.)
--
-- Fetching. Calls are handed out under a lease, in the order of the queues given, within what each service has free. An
-- open breaker pauses its background queue here: nothing is handed out, nothing is counted, and the backlog costs a look
-- at one hash. Only the call that holds the breaker's trial passes, once for each time that the trial is taken. A call whose
-- time is over is left out: expire.lua finds it.
--
-- Bounds across workers. How many calls of a group are in flight is counted from their leases. After a breaker has closed,
-- a slow start bounds the background calls besides: from 1, doubled again and again up to the normal bound. A fetch that
-- a bound turns away leaves a mark, so that whoever ends a call without fetching wakes somebody; when a slow start grows,
-- the workers' own timers tell them.
--
-- An answer may be lost on its way. What it handed out would wait for its lease, and count as a death, though no worker
-- died: so each fetch has a label, and names the labels of its process whose answers did not come; what those handed out
-- goes back before anything else. A fetch that is carried out after its worker gave it up hands out nothing.
--
-- This runs once for every call, so it is written for few commands and few functions.
--
-- ARGV: prefix
--       queue of the call that is over ('' for none), id, token, mailbox or '', reply, ms for which the reply is kept,
--       the field of the fleet's counts for how it ended, or ''
--       label of the fetch, ms after which it is given up (0: never), lease ms
--       number of labels not heard of, each with its number of queues and these
--       number of groups, then for each: free slots, the most in flight in the fleet (0: any number), background slots of
--       this worker, number of queues, then for each queue: its name, its gate (a breaker's key, or the same after a "-"
--       where only its Retry-After counts, or ''), the most to take from it
-- Returns {1 ended | 0 the delivery is no longer the call's newest one, now ms, ms until the next due call of each group
--          or -1, numbers (from 1) of the queues that had calls whose time is over, numbers of the groups that a bound
--          has turned away,
--          then {number of the queue, id, token, deaths, payload, progress, trial 0|1, latest start ms or 0, ms since when
--          it could start or 0}, ...}.

local number = 0
local label, lease = ARGV[9], tonumber(ARGV[11])
local late = tonumber(ARGV[10]) > 0 and NOW > tonumber(ARGV[10])
local dues, overdue, bounded = {}, {}, {}
local result = { 0, NOW, dues, overdue, bounded }
-- Calls that are too late are dropped as they are met, but only so many at a time: a script must stay short.
local PATIENCE = 200

local at = 11
local function next_argument()
  at = at + 1
  return ARGV[at]
end

local function hand_out(number, Q, id, token, deaths, payload, progress, trial, latest, since)
  redis.call('ZADD', Q .. 'lease', lease_until(lease, #result), id)
  result[#result + 1] = { number, id, token, deaths, payload, progress, trial, latest, since }
end

-- The call has been taken from its place, where it was since these ms (0: unknown). False when it is gone, or its time is over.
local function deliver(number, Q, id, trial, since)
  local payload = redis.call('HGET', Q .. 'msg', id)
  if not payload then
    return false
  end
  local latest = tonumber(redis.call('ZSCORE', Q .. 'exp', id) or 0)
  if latest > 0 and latest <= NOW then
    overdue[#overdue + 1] = number
    return false
  end
  local token, deaths, progress = 1, 0, ''
  if redis.call('HSETNX', Q .. 'tok', id, '1:' .. label) == 0 then
    token = token_of(Q, id) + 1
    redis.call('HSET', Q .. 'tok', id, whole(token) .. ':' .. label)
    deaths = tonumber(redis.call('HGET', Q .. 'deaths', id) or 0)
    progress = redis.call('HGET', Q .. 'prog', id) or ''
  end
  hand_out(number, Q, id, token, deaths, payload, progress, trial, latest, since)
  return true
end

-- Calls that were handed to whoever waits, and nobody did: they are under their first lease already. A token that lies
-- there is spent by this fetch.
local function fetch_handed(number, Q, room)
  local taken = 0
  while taken < room do
    local element = redis.call('LPOP', Q .. 'wake')
    if not element or element == '1' then
      break
    end
    local id, since, latest, payload = string.match(element, '^h([^\n]*)\n(%d+)\n(%d+)\n(.*)$')
    latest = tonumber(latest)
    if latest > 0 and latest <= NOW then
      redis.call('ZREM', Q .. 'lease', id)
      overdue[#overdue + 1] = number
    else
      redis.call('HSET', Q .. 'tok', id, '1:' .. label)
      hand_out(number, Q, id, 1, 0, payload, '', 0, latest, tonumber(since))
      taken = taken + 1
    end
  end
  return taken
end

-- What is due becomes ready. Answers the ms until the next one is due, or -1.
local function promote(Q)
  for _ = 1, 100 do
    local head = redis.call('ZRANGE', Q .. 'due', 0, 0, 'WITHSCORES')
    if not head[2] then
      return -1
    end
    local wait = tonumber(head[2]) - NOW
    if wait > 0 then
      return wait
    end
    redis.call('ZREM', Q .. 'due', head[1])
    redis.call('ZADD', Q .. 'ready', whole(tonumber(head[2]) * 1000), head[1])  -- in the order of their times
  end
  return 0
end

local function fetch_ready(number, Q, room)
  local taken, seen = 0, 0
  while taken < room and seen < PATIENCE do
    local popped = redis.call('ZPOPMIN', Q .. 'ready', room - taken)
    if not popped[1] then
      break
    end
    for position = 1, #popped, 2 do
      seen = seen + 1
      if deliver(number, Q, popped[position], 0, tonumber(popped[position + 1]) / 1000) then
        taken = taken + 1
      end
    end
  end
  return taken, seen >= PATIENCE
end

-- The breaker's field is this script's ticket, good for one delivery: should the worker die, the trial has failed.
local function fetch_trial(number, Q, breaker, id, room)
  if id and id ~= '' and room > 0 and not redis.call('ZSCORE', Q .. 'lease', id) then
    local there = redis.call('ZREM', Q .. 'ready', id) + redis.call('ZREM', Q .. 'due', id) > 0
    if there and deliver(number, Q, id, 1, 0) then
      redis.call('HSET', breaker, 'trial', '')
      return 1
    end
  end
  return 0
end

-- Background calls that may be in flight so many ms after the breaker has closed, and the ms until there may be more.
local function slow_start(normal, since, length)
  if normal < 2 then
    return 1, length - since
  end
  local doublings = math.log(normal) / math.log(2)
  local done = math.floor(doublings * since / length)
  return 2 ^ done, math.min(length, math.ceil(length * (done + 1) / doublings)) - since
end

-- Answers how many were taken, ms until another fetch may find more or -1, and whether a bound kept it from taking more.
local function fetch(number, queue, gate, room, limit, allowed, normal)
  local Q, growth = base(queue), -1
  if gate ~= '' then
    local ungated = string.sub(gate, 1, 1) == '-'
    local breaker = P .. 'breaker:' .. (ungated and string.sub(gate, 2) or gate)
    local state = redis.call('HMGET', breaker, 'state', 'trial', 'hold', 'closed', 'slow')
    if state[1] and state[1] ~= 'closed' and not ungated then
      return fetch_trial(number, Q, breaker, state[2], math.min(room, allowed)), -1, allowed <= 0 and state[2] ~= ''
    end
    local hold, slow = tonumber(state[3] or 0) - NOW, tonumber(state[5] or 0)
    if hold > 0 then
      return 0, hold, false
    end
    local since = NOW - tonumber(state[4] or 0)
    if since < slow and not ungated then
      local most
      most, growth = slow_start(normal > 0 and normal or -normal * workers_serving(Q), since, slow)
      allowed = math.min(allowed, most - redis.call('ZCARD', Q .. 'lease'))
    end
  end
  local taken, due, tired = 0, -1, false
  local fits = math.min(room, allowed)
  if fits > 0 then
    local handed = is_waited(queue) and fetch_handed(number, Q, fits) or 0
    due = promote(Q)
    taken, tired = fetch_ready(number, Q, fits - handed)
    taken = taken + handed
  end
  if taken >= allowed then
    return taken, room > 0 and growth or -1, redis.call('ZCARD', Q .. 'ready') + redis.call('ZCARD', Q .. 'due') > 0
  end
  -- What is left behind is for the next fetcher. So is the timer for what is due later, once there is no room here.
  local full = taken >= room
  if full and (redis.call('ZCARD', Q .. 'ready') > 0 or limit > 0 and redis.call('ZCARD', Q .. 'due') > 0) then
    if taken == 0 then
      work_without_memory()
    end
    wake(Q)
  end
  return taken, full and -1 or tired and 0 or due, false
end

-- The names of the next `count` queues of ARGV, each once: two of three may be the same.
local function upcoming(count)
  local names, seen = {}, {}
  for position = at + 1, at + 3 * count, 3 do
    if not seen[ARGV[position]] then
      seen[ARGV[position]] = true
      names[#names + 1] = ARGV[position]
    end
  end
  return names
end

local function in_flight(queues)
  local calls = 0
  for _, queue in ipairs(queues) do
    calls = calls + redis.call('ZCARD', base(queue) .. 'lease')
  end
  return calls
end

local function fetch_group(group)
  local free, bound, slots, queues = tonumber(next_argument()), tonumber(next_argument()), next_argument(), tonumber(next_argument())
  local soonest, turned_away, allowed = -1, false, math.huge
  local names = bound > 0 and upcoming(queues)
  if names then
    allowed = bound - in_flight(names)
  end
  for _ = 1, queues do
    local queue, gate, limit = next_argument(), next_argument(), tonumber(next_argument())
    number = number + 1
    local room = late and 0 or math.min(limit, free)
    local taken, due, kept = fetch(number, queue, gate, room, limit, allowed, bound > 0 and bound or -slots)
    free, allowed, turned_away = free - taken, allowed - taken, turned_away or kept
    if kept and not names then
      names = { queue }
    end
    if due >= 0 and (soonest < 0 or due < soonest) then
      soonest = due
    end
  end
  if turned_away then
    bounded[#bounded + 1] = group
    work_without_memory()  -- nothing may have been taken by now
    for _, queue in ipairs(names) do
      if redis.call('ZCARD', base(queue) .. 'lease') > 0 then
        redis.call('HSET', base(queue) .. 'tok', '!', '1')
      end
    end
  end
  dues[group] = soonest
end

local function take_back_what_was_not_heard(unheard, queue)
  local Q, lost = base(queue), {}
  for _, id in ipairs(redis.call('ZRANGE', Q .. 'lease', 0, -1)) do
    local stored = redis.call('HGET', Q .. 'tok', id)
    if stored and string.match(stored, ':(.*)$') == unheard then
      lost[#lost + 1] = id
    end
  end
  for position = #lost, 1, -1 do  -- the latest first, so that each goes in front of those that came after it
    redis.call('ZREM', Q .. 'lease', lost[position])
    make_first(Q, lost[position])
  end
end

local freed = nil
if ARGV[2] ~= '' then
  local queue, id, token = ARGV[2], ARGV[3], ARGV[4]
  local Q = base(queue)
  local newest = redis.call('HMGET', Q .. 'tok', id, '!')
  if newest[1] and string.match(newest[1], '^%d+') == token then
    local leased = redis.call('ZREM', Q .. 'lease', id) == 1  -- first of all, see work_without_memory()
    local waited = is_waited(queue)
    if leased and token == '1' then
      if not waited then
        weigh(Q, -redis.call('HSTRLEN', Q .. 'msg', id))
      end
      redis.call('HDEL', Q .. 'msg', id)  -- as forget(), which looks everywhere
      redis.call('HDEL', Q .. 'tok', id)
      redis.call('ZREM', Q .. 'exp', id)
      if not waited then
        forget_coalescing(Q, id)
      end
    else
      forget(Q, id)
    end
    if ARGV[5] ~= '' then
      post(ARGV[5], ARGV[6])
    end
    if not waited then
      conclude(Q, id, ARGV[6], tonumber(ARGV[7]))
    end
    if ARGV[8] ~= '' then
      redis.call('HINCRBY', P .. 'counts', ARGV[8], 1)
    end
    if newest[2] then
      freed = Q
    end
    result[1] = 1
  end
end
for _ = 1, tonumber(next_argument()) do
  local unheard = next_argument()
  for _ = 1, tonumber(next_argument()) do
    take_back_what_was_not_heard(unheard, next_argument())
  end
end
for group = 1, tonumber(next_argument()) do
  fetch_group(group)
end
if freed and #bounded == 0 then
  make_room(freed)  -- else its place was taken again right here
end
return result

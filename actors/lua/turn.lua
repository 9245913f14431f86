-- A worker's turn: say what came of a delivery, and take what may start now, in one step.
--
-- Settling. A delivery is acknowledged and answered, or scheduled again, or given back, or buried. Idempotent by (id,
-- token): a settlement of an older delivery, or a repeated one, changes nothing.
--
-- Fetching. Calls are handed out under a lease, in the order of the queues given, within what each service has free. An
-- open breaker pauses its background queue here: nothing is handed out, nothing is counted, and the backlog costs a look
-- at one hash. Only the call that holds the breaker's trial passes, once for each time that the trial is taken.
--
-- An answer may be lost on its way. What it handed out would wait for its lease, and count as a death, though no worker
-- died: so each fetch has a label, and names the labels of its process whose answers did not come; what those handed out
-- goes back before anything else. A fetch that is carried out after its worker gave it up hands out nothing.
--
-- ARGV: prefix
--       verb of the settlement ('' for none), queue, id, token, and three more by the verb:
--         done     mailbox or '', reply, keep ms     the call is over; kept and told to watchers for a background call
--         later    delay ms, progress, ''            an attempt or a round failed; the next one is due then
--         release  first 0|1, delay ms, progress ''  not started, or not counted: back where it was, to the end, or later
--         bury     reason, mailbox or '', reply      to the dead letters; its progress is in the next argument
--       progress of a burial or ''
--       label of the fetch, ms after which it is given up (0: never), lease ms,
--       poison after n deaths (0: give back no dead worker's calls now)
--       number of labels not heard of, each with its number of queues and these
--       number of groups, then for each: free slots, number of queues, then for each queue: its name, its gate (a breaker's
--       key, or ''), the most to take from it
-- Returns {1 settled | 0 the delivery is no longer the call's newest one, now ms, ms until the next due call of each group
--          or -1, then {number of the queue from 1, id, token, deaths, payload, progress, trial 0|1, latest start ms or 0}}.

local settled = 0

-- The call is over: as forget(), without looking where such a delivery has left nothing.
local function finish(queue, Q, id, token, leased)
  if not leased or token ~= '1' or not is_waited(queue) then
    return forget(Q, id)
  end
  redis.call('HDEL', Q .. 'msg', id)
  redis.call('HDEL', Q .. 'tok', id)
  redis.call('ZREM', Q .. 'exp', id)
end

local function answer(queue, id, mailbox, reply, keep)
  if mailbox ~= '' then
    post(mailbox, reply)
  end
  if not is_waited(queue) then
    conclude(base(queue), id, reply, keep)
  end
end

local function put_back(Q, id, delay, first)
  if delay > 0 then
    make_due(Q, id, delay)
    return
  end
  if first then
    make_first(Q, id)
  else
    make_ready(Q, id)
  end
  wake(Q)
end

-- A newer call with its coalesce key has come while it ran.
local function give_way(Q, id, progress, due)
  if progress then
    inherit(Q, redis.call('HGET', Q .. 'co', redis.call('HGET', Q .. 'cokey', id)), progress, due)
  end
  replace(Q, id)
end

local function settle(verb, queue, id, token, a, b, c, d)
  local Q = base(queue)
  if token_of(Q, id) ~= token then
    return 0
  end
  local leased = redis.call('ZREM', Q .. 'lease', id) == 1  -- first of all, see work_without_memory()
  if verb == 'done' then
    finish(queue, Q, id, token, leased)
    answer(queue, id, a, b, tonumber(c))
  elseif verb == 'bury' then
    if d ~= '' then
      redis.call('HSET', Q .. 'prog', id, d)
    end
    bury(queue, Q, id, a)
    answer(queue, id, b, c, DONE_MS)
  elseif not leased then
    return 0  -- its lease ran out and it is waiting again already
  elseif verb == 'later' then
    if is_superseded(Q, id) then
      give_way(Q, id, b, NOW + tonumber(a))
    else
      redis.call('HSET', Q .. 'prog', id, b)
      put_back(Q, id, tonumber(a), false)
    end
  elseif is_superseded(Q, id) then
    give_way(Q, id)
  else
    if c ~= '' then
      redis.call('HSET', Q .. 'prog', id, c)
    end
    put_back(Q, id, tonumber(b), a == '1')
  end
  return 1
end

local VERBS = { done = true, later = true, release = true, bury = true }
local verb = ARGV[2]
if VERBS[verb] then
  settled = settle(verb, unpack(ARGV, 3, 9))
elseif verb ~= '' then
  return redis.error_reply('turn.lua knows no verb ' .. verb)
end

local label, lease, poison = ARGV[10], tonumber(ARGV[12]), tonumber(ARGV[13])
local late = tonumber(ARGV[11]) > 0 and NOW > tonumber(ARGV[11])
local result = { settled, NOW }
local rows = 0
-- Late calls are dropped as they are met, but only so many at a time: a script must stay short.
local PATIENCE = 200

local at = 14
local function next_argument()
  at = at + 1
  return ARGV[at - 1]
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

local function hand_out(number, Q, id, token, deaths, payload, progress, trial, latest)
  rows = rows + 1
  redis.call('ZADD', Q .. 'lease', lease_until(lease, rows), id)
  result[#result + 1] = { number, id, token, deaths, payload, progress, trial, latest }
end

local function deliver(number, queue, Q, id, trial)
  local payload = redis.call('HGET', Q .. 'msg', id)
  if not payload then
    return false
  end
  local latest = tonumber(redis.call('ZSCORE', Q .. 'exp', id) or 0)
  if latest > 0 and latest <= NOW then
    expire(queue, Q, id)
    return false
  end
  local token, deaths, progress = token_of(Q, id), 0, ''
  if token then
    deaths = tonumber(redis.call('HGET', Q .. 'deaths', id) or 0)
    progress = redis.call('HGET', Q .. 'prog', id) or ''
  end
  token = tonumber(token or 0) + 1
  redis.call('HSET', Q .. 'tok', id, whole(token) .. ':' .. label)
  hand_out(number, Q, id, token, deaths, payload, progress, trial, latest)
  return true
end

-- Calls that were handed to whoever waits, and nobody did: they are under their first lease already. A token that lies
-- there is spent by this fetch.
local function fetch_handed(number, queue, Q, room)
  local taken = 0
  while taken < room do
    local element = redis.call('LPOP', Q .. 'wake')
    if not element or element == '1' then
      break
    end
    local id, latest, payload = string.match(element, '^h([^\n]*)\n%d+\n(%d+)\n(.*)$')
    latest = tonumber(latest)
    if latest > 0 and latest <= NOW then
      expire(queue, Q, id)
    else
      redis.call('HSET', Q .. 'tok', id, '1:' .. label)
      hand_out(number, Q, id, 1, 0, payload, '', 0, latest)
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
    make_due_ready(Q, head[1], tonumber(head[2]))
  end
  return 0
end

-- The breaker's field is this script's ticket, good for one delivery: should the worker die, the trial has failed.
local function fetch_trial(number, queue, Q, breaker, id, room)
  if id and id ~= '' and room > 0 and not redis.call('ZSCORE', Q .. 'lease', id) then
    local there = redis.call('ZREM', Q .. 'ready', id) + redis.call('ZREM', Q .. 'due', id) > 0
    if there and deliver(number, queue, Q, id, 1) then
      redis.call('HSET', breaker, 'trial', '')
      return 1
    end
  end
  return 0
end

local function fetch_ready(number, queue, Q, room)
  local taken, seen = 0, 0
  while taken < room and seen < PATIENCE do
    local popped = redis.call('ZPOPMIN', Q .. 'ready', room - taken)
    if not popped[1] then
      break
    end
    for position = 1, #popped, 2 do
      seen = seen + 1
      if deliver(number, queue, Q, popped[position], 0) then
        taken = taken + 1
      end
    end
  end
  return taken, seen >= PATIENCE
end

local function fetch(number, queue, gate, room, limit)
  local Q = base(queue)
  if poison > 0 then
    reap(queue, Q, poison, 100)
  end
  local breaker = P .. 'breaker:' .. gate
  local state = gate ~= '' and redis.call('HMGET', breaker, 'state', 'trial') or {}
  if state[1] and state[1] ~= 'closed' then
    return fetch_trial(number, queue, Q, breaker, state[2], room), -1
  end
  local taken, due, tired = 0, -1, false
  if room > 0 then
    local handed = is_waited(queue) and fetch_handed(number, queue, Q, room) or 0
    due = promote(Q)
    taken, tired = fetch_ready(number, queue, Q, room - handed)
    taken = taken + handed
  end
  -- What is left behind is for the next fetcher. So is the timer for what is due later, once there is no room here.
  local full = taken >= room
  if full and redis.call('ZCARD', Q .. 'ready') > 0 or full and limit > 0 and redis.call('ZCARD', Q .. 'due') > 0 then
    wake(Q)
  end
  return taken, full and -1 or tired and 0 or due
end

work_without_memory()
if poison > 0 and not touch(lease) then
  poison = 0
end
for _ = 1, tonumber(next_argument()) do
  local unheard = next_argument()
  for _ = 1, tonumber(next_argument()) do
    take_back_what_was_not_heard(unheard, next_argument())
  end
end
local number, dues = 0, {}
for group = 1, tonumber(next_argument()) do
  local free, soonest = tonumber(next_argument()), -1
  for _ = 1, tonumber(next_argument()) do
    local queue, gate, limit = next_argument(), next_argument(), tonumber(next_argument())
    number = number + 1
    local taken, due = fetch(number, queue, gate, late and 0 or math.min(limit, free), limit)
    free = free - taken
    if due >= 0 and (soonest < 0 or due < soonest) then
      soonest = due
    end
  end
  dues[group] = soonest
end
table.insert(result, 3, dues)
return result

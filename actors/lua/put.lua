-- Accept calls. Idempotent by id: a call that waits or runs, or a background call whose end is remembered, is not accepted
-- twice.
--
-- ARGV: prefix
--       the caller's mailbox, and the smallest entry that it has not read ('' and '': it has read nothing lately)
--       queue, the most calls that it holds (0: any number)
--       ms of the lease under which a waited-for call is handed to whoever is idle (0: it is not)
--       1 for plain calls, else 0
--       ms after which all of them expire (0: never)
--       the most bytes of payloads that the queue holds (0: any number)
--       then for each call: id, payload, and unless they are plain: delay ms (0: now), ms before which it must not start (0),
--       coalesce key ('': none), dedupe key ('': none), ms for which that stands, schedule ('': none), ms of its tick
-- Returns {workers that serve the queue, then for each call: {1 accepted | 0 known already | 2 another one came first |
--          -1 queue full | -2 full by bytes, id that it replaced or that came first or ''}}; for several plain calls that
--          were all accepted just the first.

local queue, cap, lease, expires = ARGV[4], tonumber(ARGV[5]), tonumber(ARGV[6]), tonumber(ARGV[8])
local cap_bytes = tonumber(ARGV[9])
local FIRST = 10
local Q = base(queue)
local waited = is_waited(queue)
local serving = workers_serving(Q)
-- Bytes up to which a call is handed over: its payload is written twice then.
local HAND_BYTES = 16384

local function is_known(id)
  return redis.call('HEXISTS', Q .. 'msg', id) == 1
    or not waited and is_remembered(Q, id)
end

local function is_first(payload)
  return lease > 0 and serving > 0 and #payload <= HAND_BYTES
    and redis.call('LLEN', Q .. 'wake') == 0 and redis.call('ZCARD', Q .. 'ready') == 0
end

local function waiting_twin(coalesce)
  local older = coalesce ~= '' and redis.call('HGET', Q .. 'co', coalesce)
  return older and not redis.call('ZSCORE', Q .. 'lease', older) and older or nil
end

-- 0 while there is room for so many more calls and bytes, else the answer for one that finds none.
local function is_full(calls, bytes)
  if cap > 0 then
    local held = redis.call('HLEN', Q .. 'msg')
    if held == 0 then
      redis.call('DEL', Q .. 'bytes')  -- a release that does not weigh may have worked here too
    end
    if held + calls > cap then
      return -1
    end
  end
  local full = cap_bytes > 0 and tonumber(redis.call('GET', Q .. 'bytes') or 0) + bytes > cap_bytes
  return full and -2 or 0
end

local function put(id, payload, delay, coalesce, dedupe, window, schedule, tick)
  if is_known(id) then
    return { 0, '' }
  end
  if schedule ~= '' and tonumber(redis.call('HGET', P .. 'ticks', schedule) or 0) >= tick then
    return { 2, '' }
  end
  local dedupe_key = P .. 'dedupe:' .. queue .. ':' .. dedupe
  local first = dedupe ~= '' and redis.call('GET', dedupe_key)
  if first then
    count(Q, 'deduped')
    return { 2, first }
  end
  local older = waiting_twin(coalesce)
  local full = is_full(older and 0 or 1, #payload - (older and redis.call('HSTRLEN', Q .. 'msg', older) or 0))
  if full < 0 then
    return { full, '' }
  end
  if dedupe ~= '' then
    redis.call('SET', dedupe_key, id, 'PX', whole(window))
  end
  if schedule ~= '' then
    redis.call('HSET', P .. 'ticks', schedule, whole(tick))
  end
  local tried, due = false, false
  if older then
    tried, due = redis.call('HGET', Q .. 'prog', older), redis.call('ZSCORE', Q .. 'due', older)
    replace(Q, older)
  end
  if coalesce ~= '' then
    redis.call('HSET', Q .. 'co', coalesce, id)
    redis.call('HSET', Q .. 'cokey', id, coalesce)
  end
  redis.call('HSET', Q .. 'msg', id, payload)
  if not waited then
    weigh(Q, #payload)
  end
  local latest = expires > 0 and NOW + expires or 0
  if latest > 0 then
    redis.call('ZADD', Q .. 'exp', whole(latest), id)
  end
  if delay > 0 then
    make_due(Q, id, delay)
  elseif is_first(payload) then
    redis.call('HSET', Q .. 'tok', id, '1')
    redis.call('ZADD', Q .. 'lease', lease_until(lease, 0), id)
    hand(Q, id, latest, payload)
  else
    make_ready(Q, id)
    wake(Q)
  end
  if tried then
    inherit(Q, id, tried, due and tonumber(due))
  end
  return { 1, older or '' }
end

-- Many plain calls at once: one command for all of them where one does. False when they need a look each.
local function put_plain()
  local ids, messages, ready, exp, bytes = {}, {}, {}, {}, 0
  local now, latest = TIME[1] * 1000000 + TIME[2], whole(NOW + expires)
  for position = FIRST, #ARGV, 2 do
    local id = ARGV[position]
    ids[#ids + 1] = id
    bytes = bytes + #ARGV[position + 1]
    messages[#messages + 1], messages[#messages + 2] = id, ARGV[position + 1]
    exp[#exp + 1], exp[#exp + 2] = latest, id
    ready[#ready + 1], ready[#ready + 2] = whole(now + #ids), id  -- in their order
  end
  if is_full(#ids, bytes) < 0 then
    return false
  end
  local waiting, ended = redis.call('HMGET', Q .. 'msg', unpack(ids)), redis.call('ZMSCORE', Q .. 'ended', unpack(ids))
  for position = 1, #ids do
    if waiting[position] or tonumber(ended[position] or 0) > NOW then
      return false
    end
  end
  redis.call('HSET', Q .. 'msg', unpack(messages))
  if not waited then
    weigh(Q, bytes)
  end
  if expires > 0 then
    redis.call('ZADD', Q .. 'exp', unpack(exp))
  end
  redis.call('ZADD', Q .. 'ready', unpack(ready))
  wake(Q)
  return true
end

redis.call('SADD', P .. 'queues', queue)
if ARGV[3] ~= '' then
  redis.call('XTRIM', P .. 'mail:' .. ARGV[2], 'MINID', ARGV[3])
end
local plain = ARGV[7] == '1'
local result = { serving }
if plain and #ARGV > FIRST + 1 and put_plain() then
  return result
end
for position = FIRST, #ARGV, plain and 2 or 9 do
  local id, payload = ARGV[position], ARGV[position + 1]
  if plain then
    result[#result + 1] = put(id, payload, 0, '', '', 0, '', 0)
  else
    local delay = math.max(tonumber(ARGV[position + 2]), tonumber(ARGV[position + 3]) - NOW)
    result[#result + 1] = put(id, payload, delay, ARGV[position + 4], ARGV[position + 5], ARGV[position + 6],
      ARGV[position + 7], tonumber(ARGV[position + 8]))
  end
end
return result

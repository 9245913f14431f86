-- Accept calls. Idempotent by id: a call that waits or runs, or a background call whose end is remembered, is not accepted
-- twice.
--
-- ARGV: prefix
--       the caller's mailbox, and the smallest entry that it has not read ('' and '': it has read nothing lately)
--       queue, cap (0: none)
--       ms of the lease under which a waited-for call is handed to whoever is idle (0: it is not)
--       1 for a batch of plain calls, else 0
--       ms after which all of them expire (0: never)
--       then for each call, plain: id, payload     else: id, payload, delay ms (0: now), coalesce key ('': none)
-- Returns {workers that serve the queue, then for each call: {1 accepted | 0 known already | -1 queue full, id that it
--          replaced or ''}}; for a batch of plain calls that were all accepted just the first.

local queue, cap, lease, expires = ARGV[4], tonumber(ARGV[5]), tonumber(ARGV[6]), tonumber(ARGV[8])
local Q = base(queue)
local serving = workers_serving(Q)
-- Bytes up to which a call is handed over: its payload is written twice then.
local HAND_BYTES = 16384

local function is_known(id)
  return redis.call('HEXISTS', Q .. 'msg', id) == 1
    or not is_waited(queue) and is_remembered(Q, id)
end

local function is_first(payload)
  return lease > 0 and serving > 0 and #payload <= HAND_BYTES
    and redis.call('LLEN', Q .. 'wake') == 0 and redis.call('ZCARD', Q .. 'ready') == 0
end

local function waiting_twin(coalesce)
  local older = coalesce ~= '' and redis.call('HGET', Q .. 'co', coalesce)
  return older and not redis.call('ZSCORE', Q .. 'lease', older) and older or nil
end

local function put(id, payload, delay, coalesce)
  if is_known(id) then
    return { 0, '' }
  end
  local older = waiting_twin(coalesce)
  if cap > 0 and redis.call('HLEN', Q .. 'msg') - (older and 1 or 0) >= cap then
    return { -1, '' }
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
  local ids, messages, ready, exp = {}, {}, {}, {}
  local now, latest = TIME[1] * 1000000 + TIME[2], whole(NOW + expires)
  for position = 9, #ARGV, 2 do
    local id = ARGV[position]
    ids[#ids + 1] = id
    messages[#messages + 1], messages[#messages + 2] = id, ARGV[position + 1]
    exp[#exp + 1], exp[#exp + 2] = latest, id
    ready[#ready + 1], ready[#ready + 2] = whole(now + #ids), id  -- in their order
  end
  if cap > 0 and redis.call('HLEN', Q .. 'msg') + #ids > cap then
    return false
  end
  local waiting, ended = redis.call('HMGET', Q .. 'msg', unpack(ids)), redis.call('ZMSCORE', Q .. 'ended', unpack(ids))
  for position = 1, #ids do
    if waiting[position] or tonumber(ended[position] or 0) > NOW then
      return false
    end
  end
  redis.call('HSET', Q .. 'msg', unpack(messages))
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
if plain and put_plain() then
  return result
end
for position = 9, #ARGV, plain and 2 or 4 do
  local id, payload = ARGV[position], ARGV[position + 1]
  local delay, coalesce = 0, ''
  if not plain then
    delay, coalesce = tonumber(ARGV[position + 2]), ARGV[position + 3]
  end
  result[#result + 1] = put(id, payload, delay, coalesce)
end
return result

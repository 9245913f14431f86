-- Dead letters: look at them, send them again, forget them.
--
-- ARGV: prefix, verb, queue, then
--   list    offset, count   -> {{id, ms of death, reason, payload, progress}, ...}, oldest first
--   show    id              -> the same for one, or {}
--   replay  id, expires ms  -> 1 when the call is queued again under its id (its workers' deaths forgotten), 0 when not there
--   purge   id              -> 1 when it was there
-- An unknown verb is an error.

local verb, queue = ARGV[2], ARGV[3]
local Q = base(queue)

local function letter(id, at)
  return { id, math.floor(tonumber(at)), redis.call('HGET', Q .. 'dead:why', id) or '',
           redis.call('HGET', Q .. 'dead:msg', id) or '', redis.call('HGET', Q .. 'dead:prog', id) or '' }
end

local function drop(id)
  redis.call('HDEL', Q .. 'dead:msg', id)
  redis.call('HDEL', Q .. 'dead:prog', id)
  redis.call('HDEL', Q .. 'dead:why', id)
  return redis.call('ZREM', Q .. 'dead', id)
end

if verb == 'list' then
  local letters = {}
  local rows = redis.call('ZRANGE', Q .. 'dead', ARGV[4], ARGV[4] + ARGV[5] - 1, 'WITHSCORES')
  for position = 1, #rows, 2 do
    letters[#letters + 1] = letter(rows[position], rows[position + 1])
  end
  return letters
elseif verb == 'show' then
  local at = redis.call('ZSCORE', Q .. 'dead', ARGV[4])
  return at and letter(ARGV[4], at) or {}
elseif verb == 'replay' then
  local id, payload = ARGV[4], redis.call('HGET', Q .. 'dead:msg', ARGV[4])
  if not payload or payload == '' then
    return 0
  end
  -- Its attempts are remembered, and do not count any more.
  local readable, progress = pcall(cmsgpack.unpack, redis.call('HGET', Q .. 'dead:prog', id) or '')
  drop(id)
  if readable and type(progress) == 'table' and progress.history then
    progress.attempt, progress.round, progress.replays = nil, nil, (tonumber(progress.replays) or 0) + 1
    redis.call('HSET', Q .. 'prog', id, cmsgpack.pack(progress))
  end
  redis.call('DEL', P .. 'done:' .. id)
  redis.call('ZREM', Q .. 'ended', id)
  redis.call('HSET', Q .. 'msg', id, payload)
  weigh(Q, #payload)
  redis.call('HSET', Q .. 'tok', id, whole(NOW))  -- no delivery of its earlier life has such a token
  if tonumber(ARGV[5]) > 0 then
    redis.call('ZADD', Q .. 'exp', whole(NOW + ARGV[5]), id)
  end
  make_ready(Q, id)
  wake(Q)
  return 1
elseif verb == 'purge' then
  return drop(ARGV[4])
end
return redis.error_reply('dead.lua knows no verb ' .. verb)

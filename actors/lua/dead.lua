-- Dead letters: look at them, send them again, forget them.
--
-- ARGV: prefix, verb, queue, then
--   list    offset, count, reason -> {next, {{id, ms of death, reason, payload, progress}, ...}}, oldest first: at most `count`
--                              that died of this reason ('' means any), from this place on. There may be more from place `next`
--                              on, also where none was found: a look ends after so many letters or bytes. At the end it is -1.
--   show    id              -> the same for one, or {}
--   replay  id, expires ms  -> 1 when the call is queued again under its id (its workers' deaths forgotten), 0 when not there
--   purge   id              -> 1 when it was there
-- An unknown verb is an error.

local SEEN, BYTES = 1000, 1000000  -- letters whose reason one look reads; bytes of payloads after which it ends

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
  local first, count, reason = tonumber(ARGV[4]), tonumber(ARGV[5]), ARGV[6]
  local most = reason == '' and count or math.max(count, SEEN)
  local rows = redis.call('ZRANGE', Q .. 'dead', first, first + most - 1, 'WITHSCORES')
  local letters, seen, bytes = {}, 0, 0
  while seen < #rows / 2 and #letters < count and bytes < BYTES do
    local id, at = rows[2 * seen + 1], rows[2 * seen + 2]
    if reason == '' or redis.call('HGET', Q .. 'dead:why', id) == reason then
      letters[#letters + 1] = letter(id, at)
      bytes = bytes + #letters[#letters][4]
    end
    seen = seen + 1
  end
  return { (seen == most or seen < #rows / 2) and first + seen or -1, letters }
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

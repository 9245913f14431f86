-- A delivery that did not end its call: scheduled again, given back, or buried. Idempotent by (id, token), as turn.lua.
--
-- ARGV: prefix, verb, queue, id, token, then
--   later    delay ms, progress                 an attempt or a round failed; the next one is due then
--   release  first 0|1, delay ms, progress ''   not started, or not counted: back where it was, or to the end, or later
--   bury     reason, mailbox or '', reply, progress ''    to the dead letters
-- Returns 1, or 0 when the delivery is no longer the call's newest one. An unknown verb is an error.

local verb, queue, id, token = ARGV[2], ARGV[3], ARGV[4], ARGV[5]
local Q = base(queue)

local function put_back(delay, first)
  if delay > 0 then
    make_due(Q, id, delay)
  elseif first then
    make_first(Q, id)
    wake(Q)
  else
    make_ready(Q, id)
    wake(Q)
  end
end

if verb ~= 'later' and verb ~= 'release' and verb ~= 'bury' then
  return redis.error_reply('again.lua knows no verb ' .. verb)
end
if token_of(Q, id) ~= token then
  return 0
end
local leased = redis.call('ZREM', Q .. 'lease', id) == 1  -- first of all, see work_without_memory()
make_room(Q)
if verb == 'bury' then
  if ARGV[9] ~= '' then
    redis.call('HSET', Q .. 'prog', id, ARGV[9])
  end
  bury(queue, Q, id, ARGV[6])
  if ARGV[7] ~= '' then
    post(ARGV[7], ARGV[8])
  end
  if not is_waited(queue) then
    conclude(Q, id, ARGV[8], DONE_MS)
  end
elseif not leased then
  return 0  -- its lease ran out and it is waiting again already
elseif is_superseded(Q, id) then
  -- A newer call with its coalesce key has come while it ran.
  if verb == 'later' then
    inherit(Q, redis.call('HGET', Q .. 'co', redis.call('HGET', Q .. 'cokey', id)), ARGV[7], NOW + tonumber(ARGV[6]))
  end
  replace(Q, id)
elseif verb == 'later' then
  redis.call('HSET', Q .. 'prog', id, ARGV[7])
  put_back(tonumber(ARGV[6]), false)
else
  if ARGV[8] ~= '' then
    redis.call('HSET', Q .. 'prog', id, ARGV[8])
  end
  put_back(tonumber(ARGV[7]), ARGV[6] == '1')
end
return 1

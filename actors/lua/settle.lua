-- Say what came of a delivery, in one step: acknowledge and reply, or acknowledge and schedule, or give back, or bury.
-- Idempotent by (id, token): a settlement of an older delivery, or a repeated one, changes nothing.
--
-- ARGV: prefix, verb, queue, id, token, then
--   done     mailbox or '', reply, keep ms      the call is over; a background call's reply is kept and told to watchers
--   later    delay ms, progress                 an attempt or a round failed; the next one is due then
--   release  first 0|1, delay ms, progress ''   not started, or not counted: back where it was, or to the end, or later
--   bury     reason, mailbox or '', reply, progress ''    to the dead letters
-- Returns 1, or 0 when the delivery is no longer the call's newest one.

local verb, queue, id, token = ARGV[2], ARGV[3], ARGV[4], ARGV[5]
local Q = base(queue)

if redis.call('HGET', Q .. 'tok', id) ~= token then
  return 0
end

work_without_memory()

local function answer(mailbox, reply, keep)
  if mailbox ~= '' then
    post(mailbox, reply)
  end
  if not is_waited(queue) then
    conclude(id, reply, keep)
  end
end

if verb == 'done' then
  forget(Q, id)
  answer(ARGV[6], ARGV[7], tonumber(ARGV[8]))
elseif verb == 'bury' then
  if ARGV[9] ~= '' then
    redis.call('HSET', Q .. 'prog', id, ARGV[9])
  end
  bury(queue, Q, id, ARGV[6])
  answer(ARGV[7], ARGV[8], DONE_MS)
elseif verb == 'later' or verb == 'release' then
  if redis.call('ZREM', Q .. 'lease', id) == 0 then
    return 0  -- its lease ran out and it is waiting again already
  end
  if is_superseded(Q, id) then
    if verb == 'later' then
      local heir = redis.call('HGET', Q .. 'co', redis.call('HGET', Q .. 'cokey', id))
      inherit(Q, heir, ARGV[7], NOW + tonumber(ARGV[6]))
    end
    replace(Q, id)
    return 1
  end
  local delay = tonumber(verb == 'later' and ARGV[6] or ARGV[7])
  local progress = verb == 'later' and ARGV[7] or ARGV[8]
  if progress ~= '' then
    redis.call('HSET', Q .. 'prog', id, progress)
  end
  if delay > 0 then
    make_due(Q, id, delay)
  elseif verb == 'release' and ARGV[6] == '1' then
    make_first(Q, id)
    wake(Q)
  else
    make_ready(Q, id)
    wake(Q)
  end
else
  return redis.error_reply('settle.lua knows no verb ' .. verb)
end
return 1

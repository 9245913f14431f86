-- The queue's vocabulary: what a script of this folder uses of it is put before that script, so that each name has one
-- meaning, and none costs those that do not need it.
--
-- ARGV[1] of every script is the key prefix, such as "seawall:". All times are milliseconds of this server's clock.
--
-- Keys of a queue, under <prefix>q:<queue>:
--   msg    HASH  id -> payload            every call that is accepted and not yet settled; written once
--   bytes  STRING                         what these payloads come to; of a background queue
--   prog   HASH  id -> progress           attempts so far; only where there were some
--   tok    HASH  id -> number[:label]     deliveries; the newest one is the lease's token, its label says which fetch it was of;
--                and "!" where a bound across workers has turned a fetch away
--   deaths HASH  id -> number             leases that ran out; only where some did
--   ready  ZSET  id -> microseconds       may be fetched, oldest first
--   due    ZSET  id -> ms                 not before this time
--   lease  ZSET  id -> ms                 being worked on, until this time
--   exp    ZSET  id -> ms                 never started after this time
--   co     HASH  coalesce key -> id       the newest waiting call with that key
--   cokey  HASH  id -> coalesce key
--   dead   ZSET  id -> ms of death, with dead:msg, dead:prog and dead:why (HASHes, id -> payload, progress, reason)
--   wake   LIST  what an idle fetcher waits for: calls that are handed to it at once (see hand), then a token "1" at the end:
--                somebody should fetch
--   ended  ZSET  id -> ms                 background calls that are over, remembered until then
--   serving ZSET worker -> ms of its last heartbeat
-- and under the prefix:
--   queues SET of queue names · workers ZSET worker -> ms · worker:<id> STRING, its report
--   done:<id> STRING, how a background call ended, for a while, where that was to be kept · watch:<id> SET of mailboxes that want to know
--   mail:<process> STREAM of replies, read and trimmed by that process · seen, grace: see touch()
--   dedupe:<queue>:<key> STRING, id of the first call with that key, as long as it stands for later ones
--   ticks HASH schedule -> ms of its last tick that was accepted · counts HASH "<service> <what>" -> how often
--   breaker:<key> HASH, see breaker.lua; here its field hold, ms until which the service asked for peace (Retry-After)

local P = ARGV[1]
local TIME = redis.call('TIME')
local NOW = TIME[1] * 1000 + math.floor(TIME[2] / 1000)

-- Lifetimes, in milliseconds. A reply that nobody fetched, a watcher that never came back, a marker of how a call ended.
local MAIL_MS = 120000
local WATCH_MS = 86400000
local DONE_MS = 60000
-- A worker that has not reported for this long does not count as running.
local SILENT_MS = 5000

local function whole(number)
  return string.format('%.0f', number)
end

-- The number of a call's newest delivery, as text; nil before the first.
local function token_of(Q, id)
  local stored = redis.call('HGET', Q .. 'tok', id)
  return stored and string.match(stored, '^%d+')
end

local function base(queue)
  return P .. 'q:' .. queue .. ':'
end

local function is_waited(queue)
  return string.sub(queue, -7) == '.waited'
end

-- One token is enough: a fetcher that leaves work behind pushes the next one.
local function wake(Q)
  if redis.call('LINDEX', Q .. 'wake', -1) ~= '1' then
    redis.call('RPUSH', Q .. 'wake', '1')
  end
end

-- A waited-for call that finds nobody before it goes into the wake list itself, under a lease already: whoever waits there
-- has it without a fetch. Such an element is "h", id, milliseconds of now and of the latest start (0: any time), payload.
local function hand(Q, id, latest, payload)
  redis.call('LPUSH', Q .. 'wake', 'h' .. id .. '\n' .. whole(NOW) .. '\n' .. whole(latest) .. '\n' .. payload)
end

-- A handed call that nobody has popped yet was not started: take it out of the list. Answers whether it was there.
local function unhand(Q, id)
  local head = 'h' .. id .. '\n'
  for _, element in ipairs(redis.call('LRANGE', Q .. 'wake', 0, -1)) do
    if string.sub(element, 1, #head) == head then
      return redis.call('LREM', Q .. 'wake', 1, element) == 1
    end
  end
  return false
end

-- Call this first in whatever makes room. A server that is out of memory refuses a script whose first write may take some,
-- and lets one go on that has begun to write: a write that takes none opens the door, so that a full queue can drain.
local function work_without_memory()
  redis.call('DEL', P .. 'nothing')
end

local function make_ready(Q, id)
  redis.call('ZADD', Q .. 'ready', whole(TIME[1] * 1000000 + TIME[2]), id)
end

-- Before everything else that waits, as it was before it was fetched.
local function make_first(Q, id)
  local first = redis.call('ZRANGE', Q .. 'ready', 0, 0, 'WITHSCORES')
  if first[2] then
    redis.call('ZADD', Q .. 'ready', whole(tonumber(first[2]) - 1), id)
  else
    make_ready(Q, id)
  end
end

local function make_due(Q, id, delay)
  redis.call('ZADD', Q .. 'due', whole(NOW + delay), id)
  if redis.call('ZRANGE', Q .. 'due', 0, 0)[1] == id then
    wake(Q)  -- a sleeping fetcher has set its timer for a later one
  end
end

-- The bytes of a background queue's payloads, for its cap.
local function weigh(Q, bytes)
  if bytes ~= 0 and redis.call('INCRBY', Q .. 'bytes', whole(bytes)) <= 0 then
    redis.call('DEL', Q .. 'bytes')
  end
end

-- A call is in flight no more: whoever a bound across workers has turned away may try again.
local function make_room(Q)
  if redis.call('HDEL', Q .. 'tok', '!') == 1 then
    wake(Q)
  end
end

local function count(Q, what)
  local service = string.match(string.sub(Q, #P + 3), '^(.*)%.[^.]*:$')
  redis.call('HINCRBY', P .. 'counts', (service or '') .. ' ' .. what, 1)
end

local function forget_coalescing(Q, id)
  local key = redis.call('HGET', Q .. 'cokey', id)
  if key then
    redis.call('HDEL', Q .. 'cokey', id)
    if redis.call('HGET', Q .. 'co', key) == id then
      redis.call('HDEL', Q .. 'co', key)
    end
  end
end

local function forget(Q, id)
  local bytes = redis.call('HSTRLEN', Q .. 'msg', id)
  redis.call('HDEL', Q .. 'msg', id)
  redis.call('HDEL', Q .. 'prog', id)
  redis.call('HDEL', Q .. 'tok', id)
  redis.call('HDEL', Q .. 'deaths', id)
  redis.call('ZREM', Q .. 'lease', id)
  redis.call('ZREM', Q .. 'exp', id)
  redis.call('ZREM', Q .. 'ready', id)
  redis.call('ZREM', Q .. 'due', id)
  if string.sub(Q, -8) ~= '.waited:' then
    weigh(Q, -bytes)
    forget_coalescing(Q, id)
  end
end

-- A newer call with its coalesce key has come since it was fetched: to run it again would bring old data back.
-- The newer call goes on where the older one was: with its failed attempts, and not before its next one was due. Otherwise
-- calls that replace each other faster than they fail would try a dead service all the time, and no round would ever end.
local function inherit(Q, heir, progress, due)
  if heir and redis.call('HEXISTS', Q .. 'msg', heir) == 1 and not redis.call('ZSCORE', Q .. 'lease', heir) then
    redis.call('HSET', Q .. 'prog', heir, progress)
    if due and due > NOW then
      redis.call('ZREM', Q .. 'ready', heir)
      make_due(Q, heir, math.max(due, tonumber(redis.call('ZSCORE', Q .. 'due', heir) or '0')) - NOW)
    end
  end
end

local function is_superseded(Q, id)
  local key = redis.call('HGET', Q .. 'cokey', id)
  return key and redis.call('HGET', Q .. 'co', key) ~= id
end

local function post(mailbox, reply)
  redis.call('XADD', P .. 'mail:' .. mailbox, '*', 'reply', reply)
  redis.call('PEXPIRE', P .. 'mail:' .. mailbox, MAIL_MS)
end

-- The last word on a background call: told to everybody who watches, and remembered for `keep` ms (also so that a repeated
-- put is no second call). An empty reply is of a call that succeeded, whose result nobody asked to keep: nothing is.
local function conclude(Q, id, reply, keep)
  keep = math.max(keep, DONE_MS)
  redis.call('ZADD', Q .. 'ended', whole(NOW + keep), id)
  if reply ~= '' then
    redis.call('SET', P .. 'done:' .. id, reply, 'PX', whole(keep))
  end
  local watchers = redis.call('SMEMBERS', P .. 'watch:' .. id)
  if reply == '' and #watchers > 0 then
    reply = cmsgpack.pack({ id = id, error = 'result-expired', message = 'the call succeeded, its result was not kept' })
  end
  for _, mailbox in ipairs(watchers) do
    post(mailbox, reply)
  end
  if #watchers > 0 then
    redis.call('DEL', P .. 'watch:' .. id)
  end
end

local function is_remembered(Q, id)
  return tonumber(redis.call('ZSCORE', Q .. 'ended', id) or 0) > NOW
end

-- A reply written here rather than by a worker: how the call ended, and why; without a message its reader finds the words.
local function verdict(id, error, detail, message)
  return cmsgpack.pack({ id = id, error = error, detail = detail, message = message })
end

local function replace(Q, id)
  forget(Q, id)
  count(Q, 'coalesced')
  conclude(Q, id, verdict(id, 'cancelled', 'replaced'), DONE_MS)
end

-- How a call has ended, for the fleet's counts.
local function count_end(queue, Q, outcome)
  count(Q, 'calls.' .. (is_waited(queue) and 'waited.' or 'background.') .. outcome)
end

local function bury(queue, Q, id, reason)
  local payload = redis.call('HGET', Q .. 'msg', id)
  local progress = redis.call('HGET', Q .. 'prog', id)
  redis.call('HSET', Q .. 'dead:msg', id, payload or '')
  redis.call('HSET', Q .. 'dead:why', id, reason)
  if progress then
    redis.call('HSET', Q .. 'dead:prog', id, progress)
  end
  redis.call('ZADD', Q .. 'dead', whole(NOW), id)
  redis.call('SADD', P .. 'queues', queue)
  count(Q, 'dead.' .. reason)
  count_end(queue, Q, 'dead')
  forget(Q, id)
end

-- Nobody starts it any more: a waited-for call is dropped (its caller has its timeout), a background call is buried.
local function expire(queue, Q, id)
  if is_waited(queue) then
    forget(Q, id)
    count_end(queue, Q, 'expired')
  else
    bury(queue, Q, id, 'expired')
    conclude(Q, id, verdict(id, 'dead', 'expired'), DONE_MS)
  end
end

-- Answers how many, at most `limit`. One that runs, or was handed over to somebody, is not late: it has started.
local function expire_overdue(queue, Q, limit)
  local expired = 0
  for _, id in ipairs(redis.call('ZRANGEBYSCORE', Q .. 'exp', '-inf', whole(NOW), 'LIMIT', 0, limit)) do
    if not redis.call('ZSCORE', Q .. 'lease', id) then
      expire(queue, Q, id)
      expired = expired + 1
    end
  end
  return expired
end

-- Every lease runs out while the server is away. After such a gap nothing is reaped for one lease's time, in which the
-- workers renew what they still hold. Called by whatever runs regularly; answers whether reaping is allowed.
local function touch(lease)
  local seen = redis.call('GET', P .. 'seen')
  redis.call('SET', P .. 'seen', whole(NOW))
  if seen and NOW - tonumber(seen) > lease / 2 then
    redis.call('SET', P .. 'grace', whole(NOW + lease), 'PX', whole(lease))
    return false
  end
  local grace = redis.call('GET', P .. 'grace')
  return not grace or NOW >= tonumber(grace)
end

-- Leases of one fetch or heartbeat end in their order, microseconds apart, so that the calls come back in it.
local function lease_until(lease, position)
  return string.format('%.3f', TIME[1] * 1000 + TIME[2] / 1000 + lease + position / 1000)
end

-- The caller of a waited-for call learns of its end from us: no worker is left to tell. Its mailbox is in the record.
local function tell_caller(payload, id, error, detail)
  local readable, call = pcall(cmsgpack.unpack, payload)
  if readable and type(call) == 'table' and type(call.reply_to) == 'string' and call.reply_to ~= '' then
    post(call.reply_to, verdict(id, error, detail))
  end
end

-- Give back what dead workers held; after `poison` such deaths a call is buried. Answers how many of each.
local function reap(queue, Q, poison, limit)
  local returned, poisoned = 0, 0
  local late = redis.call('ZRANGEBYSCORE', Q .. 'lease', '-inf', whole(NOW), 'LIMIT', 0, limit)
  for position = #late, 1, -1 do  -- the latest first, so that each goes in front of those that came after it
    local id = late[position]
    redis.call('ZREM', Q .. 'lease', id)
    if is_waited(queue) and unhand(Q, id) then
      make_first(Q, id)
      returned = returned + 1
    elseif is_superseded(Q, id) then
      replace(Q, id)
    elseif redis.call('HEXISTS', Q .. 'msg', id) == 1 then
      if redis.call('HINCRBY', Q .. 'deaths', id, 1) >= poison then
        local payload = redis.call('HGET', Q .. 'msg', id)
        bury(queue, Q, id, 'poison')
        tell_caller(payload, id, 'dead', 'poison')
        conclude(Q, id, verdict(id, 'dead', 'poison'), DONE_MS)
        poisoned = poisoned + 1
      else
        make_first(Q, id)
        returned = returned + 1
      end
    end
  end
  if returned > 0 then
    wake(Q)
  end
  if #late > 0 then
    make_room(Q)
  end
  return returned, poisoned
end

local function workers_serving(Q)
  return redis.call('ZCOUNT', Q .. 'serving', whole(NOW - SILENT_MS), '+inf')
end

-- Breaker records: read, and compare and swap on the server's clock. What a record means is Python's business.
--
-- Keys, all under the namespace <ns> (ARGV[2]); none expires, there is one set of them per service:
--   <ns>:breaker:<key>    HASH  v      version, counted from 1
--                               state  "closed", "open" or "half_open"  (read by the queue's fetch script)
--                               trial  id of the trial that was taken, or empty  (the queue's fetch script empties it once
--                                      it has handed out that call)
--                               rec    the whole record, MessagePack
--                               closed, slow  ms when it closed after it had been open (0: not), and for how many ms background
--                                      calls then start slowly  (read by the queue's fetch script)
--                               hold   the queue's: ms until which the service asked for peace
--                               began  ms when it left `closed`: the beginning of the outage that goes on
--   <ns>:breaker-keys     SET   the <key> of every stored record, so that nothing has to scan the keyspace
--   <ns>:transitions      STREAM  each change of a state, the last thousand or so: service, from, to, began (ms, as above), why,
--                               forced (1: by hand)
--   <ns>:counts           HASH  "<key> to.<state>", "<key> outages", "<key> outage.ms" (of those that have ended)
--   <ns>:breakers         pub/sub channel: "<key> <rec>" for every swap that was carried out
--
-- Commands (ARGV[1]), their further arguments, and what they return; <now> is the server's TIME in seconds, as text:
--   read      <key>                  -> {now, v or nil, rec or nil}
--   read_all                         -> {now, key, v, rec, key, v, rec, ...}
--   swap      <key> <expected v, 0 = not stored yet> <assumed now> <tolerance in seconds> <state> <trial> <rec>
--             <closed> <slow> <why> <forced>
--                                    -> {now, 1}                       stored as version expected + 1, and announced
--                                    -> {now, 0, v or nil, rec or nil} refused: another version is stored, or the
--                                                                      assumed time is off by more than the tolerance

local command, ns = ARGV[1], ARGV[2]

local function now()
  local time = redis.call('TIME')
  return string.format('%s.%06d', time[1], tonumber(time[2]))
end

local function hash_of(key)
  return ns .. ':breaker:' .. key
end

local function read(key)
  local fields = redis.call('HMGET', hash_of(key), 'v', 'rec')
  return {now(), fields[1], fields[2]}
end

local function read_all()
  local answer = {now()}
  for _, key in ipairs(redis.call('SMEMBERS', ns .. ':breaker-keys')) do
    local fields = redis.call('HMGET', hash_of(key), 'v', 'rec')
    if fields[1] and fields[2] then
      answer[#answer + 1] = key
      answer[#answer + 1] = fields[1]
      answer[#answer + 1] = fields[2]
    end
  end
  return answer
end

-- The state has changed: note it, exactly once in the fleet, and count an outage that has ended.
local function note_change(time, key, from, to, began, why, forced)
  local ms = string.format('%.0f', tonumber(time) * 1000)
  if from == 'closed' or not began then
    began = ms
    redis.call('HSET', hash_of(key), 'began', began)
  end
  redis.call('XADD', ns .. ':transitions', 'MAXLEN', '~', 1000, '*', 'service', key, 'from', from, 'to', to,
    'began', began, 'why', why, 'forced', forced)
  redis.call('HINCRBY', ns .. ':counts', key .. ' to.' .. to, 1)
  if to == 'closed' then
    redis.call('HINCRBY', ns .. ':counts', key .. ' outages', 1)
    redis.call('HINCRBY', ns .. ':counts', key .. ' outage.ms', string.format('%.0f', math.max(0, ms - began)))
    redis.call('HDEL', hash_of(key), 'began')  -- a release that writes none may note the next one
  end
end

local function swap(key, expected, assumed_now, tolerance, state, trial, rec, closed, slow, why, forced)
  local time = now()
  local stored = redis.call('HMGET', hash_of(key), 'v', 'rec', 'state', 'began')
  local same_version = tonumber(stored[1] or 0) == tonumber(expected)
  if not same_version or math.abs(tonumber(time) - tonumber(assumed_now)) > tonumber(tolerance) then
    return {time, 0, stored[1], stored[2]}
  end
  -- A script that has written already is not asked for memory any more. A breaker has to change also when there is none left:
  -- one that stays open holds back the calls that fill the memory.
  redis.call('DEL', ns .. ':nothing')
  redis.call('HSET', hash_of(key), 'v', tonumber(expected) + 1, 'state', state, 'trial', trial, 'rec', rec,
    'closed', closed, 'slow', slow)
  redis.call('SADD', ns .. ':breaker-keys', key)
  local from = stored[3] or 'closed'
  if from ~= state then
    note_change(time, key, from, state, stored[4], why, forced)
  end
  redis.call('PUBLISH', ns .. ':breakers', key .. ' ' .. rec)
  return {time, 1}
end

if command == 'read' then
  return read(ARGV[3])
elseif command == 'read_all' then
  return read_all()
elseif command == 'swap' then
  return swap(ARGV[3], ARGV[4], ARGV[5], ARGV[6], ARGV[7], ARGV[8], ARGV[9], ARGV[10], ARGV[11],
    ARGV[12], ARGV[13])
end
return redis.error_reply('unknown breaker command: ' .. tostring(command))

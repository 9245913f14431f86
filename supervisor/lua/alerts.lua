-- What is remembered of alerts: read, and compare and swap. What the state means is Python's business.
--
-- Keys, all under the namespace <ns> (ARGV[2]); none expires:
--   <ns>:alerts        HASH    v      version, counted from 1
--                              state  JSON: the last transition that was handled, outages under way, alerts to be delivered
--   <ns>:transitions   STREAM  the breakers' changes, oldest first  (written by the swap; only read here)
--
-- Commands (ARGV[1]), their further arguments, and what they return; <now> is the server's TIME in seconds, as text:
--   load                       -> {now, v (0: not stored yet), state or '', id of the newest transition}
--   save  <expected v> <state> -> 1 stored as version expected + 1
--                                 0 refused: another version is stored

local command, ns = ARGV[1], ARGV[2]
local ALERTS, TRANSITIONS = ns .. ':alerts', ns .. ':transitions'

local function load()
  local time = redis.call('TIME')
  local stored = redis.call('HMGET', ALERTS, 'v', 'state')
  local newest = redis.call('XREVRANGE', TRANSITIONS, '+', '-', 'COUNT', 1)[1]
  local now = string.format('%s.%06d', time[1], tonumber(time[2]))
  return {now, tonumber(stored[1] or '0'), stored[2] or '', newest and newest[1] or '0-0'}
end

local function save(expected, state)
  if tonumber(redis.call('HGET', ALERTS, 'v') or '0') ~= expected then
    return 0
  end
  redis.call('DEL', ns .. ':nothing') -- so that it is stored also when the memory is full, as breakers are
  redis.call('HSET', ALERTS, 'v', string.format('%d', expected + 1), 'state', state)
  return 1
end

if command == 'load' then
  return load()
elseif command == 'save' then
  return save(tonumber(ARGV[3]), ARGV[4])
end
return redis.error_reply('unknown alerts command: ' .. tostring(command))

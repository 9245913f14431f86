-- The supervisors of a fleet: who is there, and which one leads. All times are milliseconds of this server's clock.
--
-- Keys, all under the namespace <ns> (ARGV[2]):
--   <ns>:leader           HASH    owner  id of the supervisor that led last; its lease may have ended
--                                 fence  number of its term; grows with every new term, never expires
--                                 until  ms when the lease ends; 0 after it was given up
--                                 lease  ms that it lasts
--   <ns>:supervisor:<id>  STRING  a supervisor's report; expires when it is not renewed
--   <ns>:supervisors      ZSET    <id> -> ms when its report ends; ended ones are taken out by whoever reports
--
-- Commands (ARGV[1]), their further arguments, and what they return:
--   renew   <owner> <lease ms>             -> {1, fence}  it leads, for another lease; a term that was interrupted, even
--                                                         by nobody, is over, and a new one begins
--                                          -> {0, fence}  somebody else leads in that term
--   resign  <owner>                        -> 1 it led and gave the lease up, 0 it did not
--   info                                   -> {owner, fence, ms left}; nobody leads: {'', last fence, 0}
--   report  <id> <report> <lifetime ms>    -> 1
--   leave   <id>                           -> 1
-- An unknown command is an error.

local command, ns = ARGV[1], ARGV[2]
local LEADER, PRESENT = ns .. ':leader', ns .. ':supervisors'
local TIME = redis.call('TIME')
local NOW = TIME[1] * 1000 + math.floor(TIME[2] / 1000)

-- A script that has written already is not asked for memory any more: somebody has to lead also when there is none left.
local function work_without_memory()
  redis.call('DEL', ns .. ':nothing')
end

local function whole(number)
  return string.format('%.0f', number)
end

-- The last owner, its fence, and how much of its lease is left. More than a whole lease cannot be: then this clock was
-- set back, and the owner may have died long ago.
local function standing()
  local fields = redis.call('HMGET', LEADER, 'owner', 'fence', 'until', 'lease')
  local left = tonumber(fields[3] or '0') - NOW
  if left < 0 or left > tonumber(fields[4] or '0') then
    left = 0
  end
  return fields[1] or '', tonumber(fields[2] or '0'), left
end

local function renew(owner, lease)
  local last, fence, left = standing()
  if left > 0 and last ~= owner then
    return {0, fence}
  end
  if left == 0 then
    fence = fence + 1
  end
  work_without_memory()
  redis.call('HSET', LEADER, 'owner', owner, 'fence', whole(fence), 'until', whole(NOW + lease), 'lease', whole(lease))
  return {1, fence}
end

local function resign(owner)
  local last, _, left = standing()
  if last ~= owner or left == 0 then
    return 0
  end
  work_without_memory()
  redis.call('HSET', LEADER, 'until', '0')
  return 1
end

local function info()
  local last, fence, left = standing()
  return {left > 0 and last or '', fence, left}
end

local function report(id, text, lifetime)
  work_without_memory()
  redis.call('SET', ns .. ':supervisor:' .. id, text, 'PX', whole(lifetime))
  redis.call('ZREMRANGEBYSCORE', PRESENT, '-inf', whole(NOW))
  redis.call('ZADD', PRESENT, whole(NOW + lifetime), id)
  return 1
end

local function leave(id)
  redis.call('DEL', ns .. ':supervisor:' .. id)
  redis.call('ZREM', PRESENT, id)
  return 1
end

if command == 'renew' then
  return renew(ARGV[3], tonumber(ARGV[4]))
elseif command == 'resign' then
  return resign(ARGV[3])
elseif command == 'info' then
  return info()
elseif command == 'report' then
  return report(ARGV[3], ARGV[4], tonumber(ARGV[5]))
elseif command == 'leave' then
  return leave(ARGV[3])
end
return redis.error_reply('unknown leader command: ' .. tostring(command))

-- When schedules ticked last. One that was never seen starts now: its first tick is the next one.
--
-- ARGV: prefix, schedules
-- Returns for each the ms of the last tick that was accepted.

local last = {}
for position = 2, #ARGV do
  redis.call('HSETNX', P .. 'ticks', ARGV[position], whole(NOW))
  last[#last + 1] = redis.call('HGET', P .. 'ticks', ARGV[position])
end
return last

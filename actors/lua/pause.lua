-- Background calls held by hand: a hold without an end, which every release of the workers obeys, see turn.lua.
--
-- ARGV: prefix, verb, then
--   pause   queue, breaker's key    its background calls wait until somebody resumes; no attempt is used up
--   resume  queue, breaker's key    they go on; what the service asked for by Retry-After ends too
--   paused  breakers' keys
-- Returns 1, or for `paused` 1 or 0 for each. An unknown verb is an error.

-- Milliseconds of the year 9999: no Retry-After is as long, because of its cap.
local FOR_EVER = 253402300799000

local verb, queue, key = ARGV[2], ARGV[3], ARGV[4]

if verb == 'pause' then
  work_without_memory()
  redis.call('HSET', P .. 'breaker:' .. key, 'hold', whole(FOR_EVER))
  return 1
elseif verb == 'resume' then
  work_without_memory()
  redis.call('HDEL', P .. 'breaker:' .. key, 'hold')
  wake(base(queue))  -- whoever sleeps there has set its timer for the end of the hold
  return 1
elseif verb == 'paused' then
  local answers = {}
  for position = 3, #ARGV do
    answers[#answers + 1] = redis.call('HGET', P .. 'breaker:' .. ARGV[position], 'hold') == whole(FOR_EVER) and 1 or 0
  end
  return answers
end
return redis.error_reply('pause.lua knows no verb ' .. verb)

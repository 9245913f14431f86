-- Take back calls that have not started (a failed attempt that waits for its next one has not started again).
--
-- ARGV: prefix, queue, how they end for the fleet's counts (cancelled, expired, refused), ids
-- Returns for each id {1 cancelled | 0 running | -1 not known, progress or '', workers that died with it}.

local queue = ARGV[2]
local Q = base(queue)
local UNKNOWN = 'the call was cancelled; a worker had died with it, so it may have been carried out'
local answers = {}
for position = 4, #ARGV do
  local id = ARGV[position]
  if redis.call('HEXISTS', Q .. 'msg', id) == 0 then
    answers[#answers + 1] = { -1, '', 0 }
  elseif redis.call('ZSCORE', Q .. 'lease', id) and not (is_waited(queue) and unhand(Q, id)) then
    answers[#answers + 1] = { 0, '', 0 }
  else
    local deaths = tonumber(redis.call('HGET', Q .. 'deaths', id) or 0)
    answers[#answers + 1] = { 1, redis.call('HGET', Q .. 'prog', id) or '', deaths }
    forget(Q, id)
    count_end(queue, Q, ARGV[3])
    if not is_waited(queue) then
      conclude(Q, id, verdict(id, 'cancelled', 'cancelled', deaths > 0 and UNKNOWN or nil), DONE_MS)
    end
  end
end
return answers

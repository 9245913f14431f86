-- Take back calls that have not started (a failed attempt that waits for its next one has not started again).
--
-- ARGV: prefix, queue, ids
-- Returns for each id {1 cancelled | 0 running | -1 not known, progress or ''}.

local queue = ARGV[2]
local Q = base(queue)
local answers = {}
for position = 3, #ARGV do
  local id = ARGV[position]
  if redis.call('HEXISTS', Q .. 'msg', id) == 0 then
    answers[#answers + 1] = { -1, '' }
  elseif redis.call('ZSCORE', Q .. 'lease', id) and not (is_waited(queue) and unhand(Q, id)) then
    answers[#answers + 1] = { 0, '' }
  else
    answers[#answers + 1] = { 1, redis.call('HGET', Q .. 'prog', id) or '' }
    forget(Q, id)
    count_end(queue, Q, 'cancelled')
    if not is_waited(queue) then
      conclude(Q, id, verdict(id, 'cancelled', 'cancelled'), DONE_MS)
    end
  end
end
return answers

-- Questions about calls, queues and workers; nothing here changes a call.
--
-- ARGV: prefix, question, then
--   watch   queue, id, mailbox      -> {'done', reply} | {'waiting'} and the mailbox gets the reply | {'gone'}
--   status  queue, id               -> {where, ms until due or -1, progress, reply or reason}; where is ready, due, leased,
--                                      done, dead or gone
--   counts  queues                  -> for each {ready, due, leased, dead, workers serving, age of the oldest waiting ms}
--   oldest  queue, breaker's key    -> {id of the call that a trial should be made with or '', 1 if it has failed before}
--   next    queue                   -> workers that serve it
-- An unknown question is an error.

local question, queue = ARGV[2], ARGV[3]

if question == 'watch' then
  local id = ARGV[4]
  local done = redis.call('GET', P .. 'done:' .. id)
  if done then
    return { 'done', done }
  end
  local Q = base(queue)
  if redis.call('HEXISTS', Q .. 'msg', id) == 0 then
    if redis.call('ZSCORE', Q .. 'dead', id) then
      return { 'done', verdict(id, 'dead', redis.call('HGET', Q .. 'dead:why', id) or '') }
    end
    return is_remembered(Q, id) and { 'done', '' } or { 'gone' }
  end
  work_without_memory()  -- a name for each call that somebody waits for
  redis.call('SADD', P .. 'watch:' .. id, ARGV[5])
  redis.call('PEXPIRE', P .. 'watch:' .. id, WATCH_MS)
  return { 'waiting' }
elseif question == 'status' then
  local Q, id = base(queue), ARGV[4]
  local progress = redis.call('HGET', Q .. 'prog', id) or ''
  if redis.call('HEXISTS', Q .. 'msg', id) == 1 then
    if redis.call('ZSCORE', Q .. 'lease', id) then
      return { 'leased', -1, progress, '' }
    end
    local due = redis.call('ZSCORE', Q .. 'due', id)
    if due then
      return { 'due', math.max(0, tonumber(due) - NOW), progress, '' }
    end
    return { 'ready', -1, progress, '' }
  end
  if redis.call('ZSCORE', Q .. 'dead', id) then
    return { 'dead', -1, redis.call('HGET', Q .. 'dead:prog', id) or '', redis.call('HGET', Q .. 'dead:why', id) or '' }
  end
  local done = redis.call('GET', P .. 'done:' .. id)
  return { (done or is_remembered(Q, id)) and 'done' or 'gone', -1, '', done or '' }
elseif question == 'counts' then
  local answers = {}
  for position = 3, #ARGV do
    local Q = base(ARGV[position])
    local first = redis.call('ZRANGE', Q .. 'ready', 0, 0, 'WITHSCORES')
    -- What was handed over and found nobody has a lease, and waits all the same.
    -- The tokens lie behind: one, or more where fetchers without room have passed theirs on.
    local handed = redis.call('LLEN', Q .. 'wake')
    while handed > 0 and redis.call('LINDEX', Q .. 'wake', handed - 1) == '1' do
      handed = handed - 1
    end
    -- Nobody makes ready what has become due behind an open breaker.
    local overdue = redis.call('ZCOUNT', Q .. 'due', '-inf', whole(NOW))
    answers[#answers + 1] = {
      redis.call('ZCARD', Q .. 'ready') + handed + overdue, redis.call('ZCARD', Q .. 'due') - overdue,
      redis.call('ZCARD', Q .. 'lease') - handed,
      redis.call('ZCARD', Q .. 'dead'), workers_serving(Q),
      first[2] and math.max(0, NOW - math.floor(tonumber(first[2]) / 1000)) or 0,
    }
  end
  return answers
elseif question == 'oldest' then
  local Q = base(queue)
  if tonumber(redis.call('HGET', P .. 'breaker:' .. ARGV[4], 'hold') or 0) > NOW then
    return { '', 0 }  -- the service asked for peace
  end
  -- One that has failed before may fail for a reason of its own, and say nothing about the service.
  local ready = redis.call('ZRANGE', Q .. 'ready', 0, 99)
  local tried = ready[1] and redis.call('HMGET', Q .. 'prog', unpack(ready)) or {}
  for position, id in ipairs(ready) do
    if not tried[position] then
      return { id, 0 }
    end
  end
  if ready[1] then
    return { ready[1], 1 }
  end
  -- Of those that wait, only calls that were tried before: the others must not start before their time.
  local waiting = redis.call('ZRANGE', Q .. 'due', 0, 99, 'WITHSCORES')
  for position = 1, #waiting, 2 do
    local id = waiting[position]
    local failed = redis.call('HEXISTS', Q .. 'prog', id)
    if failed == 1 or tonumber(waiting[position + 1]) <= NOW then
      return { id, failed }
    end
  end
  return { '', 0 }
elseif question == 'next' then
  return workers_serving(base(queue))
end
return redis.error_reply('look.lua knows no question ' .. question)

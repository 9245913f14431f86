-- A worker's goodbye: callers learn at once that it serves nothing any more, and another fetcher takes over its timers.
--
-- ARGV: prefix, worker id ('' for a fetcher that stops before its worker does), queue names
-- Returns 1.

work_without_memory()
for position = 3, #ARGV do
  local Q = base(ARGV[position])
  redis.call('ZREM', Q .. 'serving', ARGV[2])
  if redis.call('ZCARD', Q .. 'due') + redis.call('ZCARD', Q .. 'ready') > 0 then
    wake(Q)
  end
end
if ARGV[2] ~= '' then
  redis.call('DEL', P .. 'worker:' .. ARGV[2])
  redis.call('ZREM', P .. 'workers', ARGV[2])
end
return 1

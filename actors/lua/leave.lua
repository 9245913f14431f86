-- A worker's goodbye: callers learn at once that it serves nothing any more.
--
-- ARGV: prefix, worker id, queue names
-- Returns 1.

for position = 3, #ARGV do
  redis.call('ZREM', base(ARGV[position]) .. 'serving', ARGV[2])
end
redis.call('DEL', P .. 'worker:' .. ARGV[2])
redis.call('ZREM', P .. 'workers', ARGV[2])
return 1

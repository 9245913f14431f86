-- End the blocking pop that a process has under way, by way of the list that nobody else pops. When the pop has ended
-- meanwhile, the element stays for the next one; should the process die before that, it goes by itself.
--
-- ARGV: prefix, list
-- Returns 1.

redis.call('LPUSH', ARGV[2], '1')
redis.call('PEXPIRE', ARGV[2], 60000)
return 1

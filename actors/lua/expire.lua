-- End the calls of a queue whose time is over: nobody starts them any more.
--
-- ARGV: prefix, queue, the most to treat
-- Returns how many.

work_without_memory()
return expire_overdue(ARGV[2], base(ARGV[2]), ARGV[3])

-- Give back what dead workers held, and end what is past its time: before a fetch, so that a fleet needs no supervisor for
-- that.
--
-- ARGV: prefix, lease ms, poison after n deaths, the most of each queue to treat, queues
-- Returns 1, or 0 when nothing may be reaped for a while, see touch().

work_without_memory()
if not touch(tonumber(ARGV[2])) then
  return 0
end
for position = 5, #ARGV do
  reap(ARGV[position], base(ARGV[position]), tonumber(ARGV[3]), ARGV[4])
  expire_overdue(ARGV[position], base(ARGV[position]), ARGV[4])
end
return 1

-- Add to the fleet's counts, which only grow.
--
-- ARGV: prefix, then pairs: "<service> <what>", how many
-- Returns 1.

work_without_memory()  -- a few fields for each service: what goes wrong on a full server is worth counting
for position = 2, #ARGV, 2 do
  redis.call('HINCRBY', P .. 'counts', ARGV[position], ARGV[position + 1])
end
return 1

-- Add to the fleet's counts, which only grow.
--
-- ARGV: prefix, then pairs: "<service> <what>", how many
-- Returns 1.

for position = 2, #ARGV, 2 do
  redis.call('HINCRBY', P .. 'counts', ARGV[position], ARGV[position + 1])
end
return 1

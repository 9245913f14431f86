-- Which commands the connection's user may run, in the server's own opinion; changes nothing.
--
-- ARGV: for each command: how many words it has, its words
-- Returns the names of those that are forbidden, or that the server does not have; nothing on a server that cannot tell.

local may_run = redis.acl_check_cmd
local refused = {}
local position = 1
while may_run and position <= #ARGV do
  local last = position + tonumber(ARGV[position])
  local known, allowed = pcall(may_run, unpack(ARGV, position + 1, last))
  if not known or not allowed then
    refused[#refused + 1] = ARGV[position + 1]
  end
  position = last + 1
end
return refused

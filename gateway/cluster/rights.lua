-- Tries every command that the scripts use, on keys and a channel of their own. So a missing right is
-- found when a node starts, and not in a storm. Leaves nothing behind.
-- Returns `command|error` for each refused command.
local facts, members, channel = KEYS[1], KEYS[2], ARGV[1]
local refused = {}
local function try(command, ...)
  local reply = redis.pcall(command, ...)
  if type(reply) == 'table' and reply.err then
    refused[#refused + 1] = string.lower(command) .. '|' .. reply.err
  end
end
try('TIME')
try('HSET', facts, 'a', '1')
try('HGET', facts, 'a')
try('HMGET', facts, 'a')
try('HGETALL', facts)
try('HVALS', facts)
try('HLEN', facts)
try('HDEL', facts, 'a')
try('ZADD', members, 1, 'a')
try('ZSCORE', members, 'a')
try('ZRANGEBYSCORE', members, '-inf', '+inf')
try('ZREM', members, 'a')
try('PUBLISH', channel, 'rights')
return refused

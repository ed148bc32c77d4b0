-- The secrets that sign the tickets of this fleet, by id. A node adds those that it has signed with;
-- the first node of a fleet adds its own. Returns all of them.
local secrets, own_id, own = KEYS[1], ARGV[1], ARGV[2]
for index = 3, #ARGV, 2 do redis.call('HSET', secrets, ARGV[index], ARGV[index + 1]) end
local marker = redis.call('HGET', secrets, '#') and 1 or 0
if redis.call('HLEN', secrets) == marker then redis.call('HSET', secrets, own_id, own) end
return redis.call('HGETALL', secrets)

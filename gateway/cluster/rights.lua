-- Every command that the scripts use, tried on keys and a channel of their own, so that a missing
-- right is found when a node starts and not in a storm. Leaves nothing behind.
local facts, members, channel = KEYS[1], KEYS[2], ARGV[1]
redis.call('TIME')
redis.call('HSET', facts, 'a', '1')
redis.call('HGET', facts, 'a')
redis.call('HMGET', facts, 'a')
redis.call('HGETALL', facts)
redis.call('HVALS', facts)
redis.call('HLEN', facts)
redis.call('HDEL', facts, 'a')
redis.call('ZADD', members, 1, 'a')
redis.call('ZSCORE', members, 'a')
redis.call('ZRANGEBYSCORE', members, '-inf', '+inf')
redis.call('ZREM', members, 'a')
redis.call('PUBLISH', channel, 'rights')
return true

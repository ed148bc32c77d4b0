-- A node says that it lives and how much the fleet could take as far as it can see.
-- Returns Redis' time, how many nodes live, and the mean of their proposals for R.
local alive, rates = KEYS[1], KEYS[2]
local node, timeout, rate = ARGV[1], tonumber(ARGV[2]), ARGV[3]
local time = redis.call('TIME')
local now = tonumber(time[1]) + tonumber(time[2]) / 1e6
redis.call('ZADD', alive, now + timeout, node)
redis.call('HSET', rates, node, rate)
for _, gone in ipairs(redis.call('ZRANGEBYSCORE', alive, '-inf', now)) do
  redis.call('ZREM', alive, gone)
  redis.call('HDEL', rates, gone)
end
local sum, count = 0, 0
for _, proposal in ipairs(redis.call('HVALS', rates)) do
  sum, count = sum + tonumber(proposal), count + 1
end
return { string.format('%.6f', now), tostring(count), string.format('%.6f', sum / count) }

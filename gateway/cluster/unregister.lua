-- Removes devices that left, unless a newer connection has registered meanwhile.
local devices, node = KEYS[1], ARGV[1]
for index = 2, #ARGV, 2 do
  if redis.call('HGET', devices, ARGV[index]) == ARGV[index + 1] .. ' ' .. node then
    redis.call('HDEL', devices, ARGV[index], ARGV[index] .. ' began')
  end
end
return true

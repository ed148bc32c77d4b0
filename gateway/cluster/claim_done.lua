-- Work that this node had claimed is done. What was done long ago is forgotten.
local claims, node = KEYS[1], ARGV[1]
local now, kept = tonumber(ARGV[2]), tonumber(ARGV[3])
for index = 4, #ARGV do
  local _, holder, at = string.match(redis.call('HGET', claims, ARGV[index]) or '', '^(%S+) (%S+) (%S+)$')
  if holder == node then
    redis.call('HSET', claims, ARGV[index], string.format('%.3f - %s', now + kept, at))
  end
end
local all = redis.call('HGETALL', claims)
for index = 1, #all, 2 do
  local before = tonumber(string.match(all[index + 1], '^(%S+)') or '') or 0
  if before + kept < now then redis.call('HDEL', claims, all[index]) end
end

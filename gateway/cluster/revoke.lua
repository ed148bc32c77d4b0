-- Facts about revocations: the newest fact about each subject is kept, and published to all nodes.
-- Of two facts of the same moment, the one that revokes wins. Returns how many were new.
local revoked, channel = KEYS[1], ARGV[1]
local news = 0
for index = 2, #ARGV, 2 do
  local name, text = ARGV[index], ARGV[index + 1]
  local fact = cjson.decode(text)
  local known = redis.call('HGET', revoked, name)
  local readable, old = pcall(cjson.decode, known or '')
  if not readable or type(old) ~= 'table' then old = { at = -1 } end
  local old_at = tonumber(old.at) or 0
  if fact.at > old_at or (fact.at == old_at and old.lifted and not fact.lifted) then
    redis.call('HSET', revoked, name, text)
    redis.call('PUBLISH', channel, text)
    news = news + 1
  end
end
return news

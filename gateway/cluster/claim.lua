-- Which node does a piece of work that only one must do. Work is a name, and the moment of fleet time
-- since which there is this work: the same name may be work again later.
-- The first node that asks has it for a while; if that node does not finish, another gets it.
-- A field holds `until` `node` `moment`; the node is `-` once the work is done.
-- Returns, for each name, `mine`, `taken` or `done`.
local claims, node = KEYS[1], ARGV[1]
local now, lease, tolerance = tonumber(ARGV[2]), tonumber(ARGV[3]), tonumber(ARGV[4])
local answers = {}
for index = 5, #ARGV, 2 do
  local name, moment = ARGV[index], tonumber(ARGV[index + 1])
  local before, holder, at = string.match(redis.call('HGET', claims, name) or '', '^(%S+) (%S+) (%S+)$')
  before, at = tonumber(before or '') or 0, tonumber(at or '') or 0
  local same = at >= moment - tolerance
  if holder == '-' and same and before > now then
    answers[#answers + 1] = 'done'
  elseif holder and holder ~= '-' and holder ~= node and before > now then
    answers[#answers + 1] = 'taken'
  else
    redis.call('HSET', claims, name, string.format('%.3f %s %.3f', now + lease, node, moment))
    answers[#answers + 1] = 'mine'
  end
end
return answers

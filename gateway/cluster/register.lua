-- Registers devices of a node, each with its fence: the newest connection of a device wins.
-- Nodes with older connections are told on their channels; older ones of this node are returned.
-- A node that is gone holds no device. A fence from the future (a wrong clock) does not count.
local devices, alive, prefix, node = KEYS[1], KEYS[2], ARGV[1], ARGV[2]
local fence_max = tonumber(ARGV[3])
local stale = {}
for index = 4, #ARGV, 2 do
  local device, fence = ARGV[index], ARGV[index + 1]
  local holder = redis.call('HGET', devices, device)
  local holder_fence, holder_node = 0, nil
  if holder then
    local found, node_found = string.match(holder, '^(%d+) (.+)$')
    holder_fence, holder_node = tonumber(found or '') or 0, node_found
  end
  local counts = holder_node and holder_node ~= node and holder_fence <= fence_max
    and redis.call('ZSCORE', alive, holder_node)
  if not counts or tonumber(fence) >= holder_fence then
    redis.call('HSET', devices, device, fence .. ' ' .. node)
    if holder_node and holder_node ~= node then
      redis.call('PUBLISH', prefix .. holder_node, 'takeover ' .. device .. ' ' .. fence)
    end
  else
    stale[#stale + 1] = device
    stale[#stale + 1] = string.format('%d', holder_fence)
  end
end
return stale

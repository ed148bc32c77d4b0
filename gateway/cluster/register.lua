-- Devices of a node, each with its fence: the newest connection of a device wins, on any node.
-- Older connections elsewhere are told on their node's channel; ours that are older are returned.
local devices, prefix, node = KEYS[1], ARGV[1], ARGV[2]
local stale = {}
for index = 3, #ARGV, 2 do
  local device, fence = ARGV[index], ARGV[index + 1]
  local holder = redis.call('HGET', devices, device)
  local holder_fence, holder_node = 0, nil
  if holder then
    local found, node_found = string.match(holder, '^(%d+) (.+)$')
    holder_fence, holder_node = tonumber(found), node_found
  end
  if tonumber(fence) >= holder_fence then
    redis.call('HSET', devices, device, fence .. ' ' .. node)
    if holder_node and holder_node ~= node then
      redis.call('PUBLISH', prefix .. holder_node, 'takeover ' .. device .. ' ' .. fence)
    end
  elseif holder_node ~= node then
    stale[#stale + 1] = device
    stale[#stale + 1] = string.format('%d', holder_fence)
  end
end
return stale

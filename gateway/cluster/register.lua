-- Registers devices of a node, each with its fence: the newest connection of a device wins. Then
-- removes those that left, unless a newer connection has registered. Both are one call, because each
-- call has a cost of its own at the node and in Redis.
-- The devices of each list are one argument, because the driver does as much for an argument as for
-- the rest of a device.
-- Nodes with older connections are told on their channels; older ones of this node are returned.
-- A node that is gone holds no device. A fence from the future (a wrong clock) does not count.
--
-- A fence is the time of the node that gave it, and the clocks of nodes differ by a little. So the
-- sessions of two nodes are compared by the clock of Redis: the node says what time it has, and its
-- error is taken off (`began`). What remains is the delay of this call, which makes `began` later.
-- So a session that begins after the older one was registered is the newer one, whatever the clocks
-- of the nodes say. Two fences of one source (the workers of a gateway) are compared as they are.
-- Everybody else orders sessions by fence. So if the newer session has the lower fence, it is given
-- the one above that of the older session, and its node is told.
--
-- The field `device` holds `fence node`. The field `device began` holds `fence given began source`;
-- it counts only if its fence is that of the first field, which older versions write alone.
local devices, alive, fleet = KEYS[1], KEYS[2], KEYS[3]
local prefix, node, source = ARGV[1], ARGV[2], ARGV[3]
local mine, ahead, tolerance = tonumber(ARGV[4]), tonumber(ARGV[5]), tonumber(ARGV[6])
local arrived, left = ARGV[7], ARGV[8]
local EACH = '(%S+) (%d+)'
local stale, raised = {}, {}

local time = redis.call('TIME')
local shift = tonumber(redis.call('HGET', fleet, 'shift') or '0')
local now = tonumber(time[1]) * 1e6 + tonumber(time[2]) + math.floor(shift * 1e6)
local error = now - mine
-- One of the clocks is wrong, and a heartbeat finds out which. Until then the fences count.
if math.abs(error) > tolerance then error = 0 end

local function whole(number) return string.format('%.0f', number) end
local function push(list, ...)
  for _, each in ipairs({ ... }) do list[#list + 1] = each end
end
local function read(device, text)
  local fence, name = string.match(text, '^(%d+) (.+)$')
  if not fence then return nil end
  local same, given, began, by = string.match(
    redis.call('HGET', devices, device .. ' began') or '', '^(%d+) (%d+) (%d+) (%S+)$')
  if same ~= fence then given, began, by = fence, fence, name end
  return { fence = tonumber(fence), node = name, given = tonumber(given),
           began = tonumber(began), source = by }
end
local function hold(device, session)
  redis.call('HSET', devices, device, whole(session.fence) .. ' ' .. session.node,
    device .. ' began', whole(session.fence) .. ' ' .. whole(session.given) .. ' '
      .. whole(session.began) .. ' ' .. session.source)
end
local function tell(name, word, ...)
  redis.call('PUBLISH', prefix .. name, word .. ' ' .. table.concat({ ... }, ' '))
end
local function is_newer(session, than)
  if session.source == than.source then return session.given >= than.given end
  return session.began >= than.began
end

-- There is a session of this device already.
local function contend(device, text, given, holder)
  local session = { fence = given, node = node, given = given, began = given + error, source = source }
  if holder.node == node then
    if holder.given == given and holder.fence > given then
      push(raised, device, text, whole(holder.fence))  -- the message is on its way, or lost
    elseif holder.fence ~= given then
      hold(device, session)
    end
  elseif holder.fence > mine + ahead or not redis.call('ZSCORE', alive, holder.node) then
    hold(device, session)
    tell(holder.node, 'takeover', device, text)
  elseif is_newer(session, holder) then
    if given <= holder.fence then
      session.fence = holder.fence + 1
      push(raised, device, text, whole(session.fence))
    end
    hold(device, session)
    tell(holder.node, 'takeover', device, whole(session.fence))
  else
    if holder.fence <= given then
      local before = holder.fence
      holder.fence = given + 1
      hold(device, holder)
      tell(holder.node, 'raised', device, whole(before), whole(holder.fence))
    end
    push(stale, device, whole(holder.fence))
  end
end

for device, text in string.gmatch(arrived, EACH) do
  local given, held = tonumber(text), redis.call('HGET', devices, device)
  local holder = held and read(device, held)
  if holder then
    contend(device, text, given, holder)
  else  -- most devices: the same as `hold`, for less
    redis.call('HSET', devices, device, text .. ' ' .. node,
      device .. ' began', text .. ' ' .. text .. ' ' .. whole(given + error) .. ' ' .. source)
  end
end
for device, text in string.gmatch(left, EACH) do
  if redis.call('HGET', devices, device) == text .. ' ' .. node then
    redis.call('HDEL', devices, device, device .. ' began')
  end
end
return { stale, raised }

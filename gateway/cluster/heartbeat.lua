-- A node says that it is alive, and learns of the fleet: its time, its nodes, its R, its epoch, and
-- whether the others took this node for dead.
--
-- Fleet time is Redis' TIME plus a shift. The shift changes only if more than half of the nodes that
-- vote find the same error. Then the clock of Redis was set, and the new shift makes up for it. A node
-- that is in dispute, or has not learnt the time yet, does not remove other nodes.
--
-- `epoch` names what this Redis remembers. Every key whose loss must be noticed holds a marker of the
-- epoch. If a marker is missing, the epoch changes, and all nodes give back what they know.
local alive, rates, fleet, views, accepts = KEYS[1], KEYS[2], KEYS[3], KEYS[4], KEYS[5]
local node, timeout, rate = ARGV[1], tonumber(ARGV[2]), ARGV[3]
local mine, tolerance = tonumber(ARGV[4]), tonumber(ARGV[5])
local proposal, accepted = ARGV[6], ARGV[7]
local FIRST_MARKED = 6

local epoch = redis.call('HGET', fleet, 'epoch')
for index = FIRST_MARKED, #KEYS do
  if redis.call('HGET', KEYS[index], '#') ~= epoch then epoch = false end
end
if not epoch then
  epoch = proposal
  redis.call('HSET', fleet, 'epoch', epoch)
  for index = FIRST_MARKED, #KEYS do redis.call('HSET', KEYS[index], '#', epoch) end
end

local time = redis.call('TIME')
local raw = tonumber(time[1]) + tonumber(time[2]) / 1e6
local shift = tonumber(redis.call('HGET', fleet, 'shift') or '0')
if mine then
  local view = mine - raw
  redis.call('HSET', views, node, string.format('%.6f', view))
  if math.abs(view - shift) > tolerance then
    local same, voters = 0, 0
    local all = redis.call('HGETALL', views)
    for index = 1, #all, 2 do
      if all[index] == node or redis.call('ZSCORE', alive, all[index]) then
        voters = voters + 1
        if math.abs(tonumber(all[index + 1]) - view) <= tolerance then same = same + 1 end
      end
    end
    if same * 2 > voters then
      shift = view
      redis.call('HSET', fleet, 'shift', string.format('%.6f', shift))
    end
  end
end
local now = raw + shift
local agreed = mine and math.abs(mine - now) <= tolerance

local new = 0
if agreed or not mine then new = redis.call('ZADD', alive, now + timeout, node) end
redis.call('HSET', rates, node, rate)
redis.call('HSET', accepts, node, accepted)
if agreed then
  local gone = redis.call('ZRANGEBYSCORE', alive, '-inf', now)
  -- The clock of Redis was ahead while no node was there to notice.
  for _, name in ipairs(redis.call('ZRANGEBYSCORE', alive, now + 2 * timeout, '+inf')) do
    gone[#gone + 1] = name
  end
  for _, name in ipairs(gone) do
    redis.call('ZREM', alive, name)
    for _, key in ipairs({ rates, views, accepts }) do redis.call('HDEL', key, name) end
  end
end
local sum, count = 0, 0
for _, proposed in ipairs(redis.call('HVALS', rates)) do
  sum, count = sum + tonumber(proposed), count + 1
end
-- One text: a client spends more on the parts of a reply than on JSON.
return cjson.encode({ string.format('%.6f', now), tostring(count), string.format('%.6f', sum / count),
                      epoch, string.format('%.6f', shift), tostring(new),
                      redis.call('HGETALL', accepts) })

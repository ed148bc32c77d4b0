-- The fleet's slot calendar: gives one node a block of slots, and takes its report.
--
-- A node with another epoch or another time than this Redis gets nothing: it must send a heartbeat
-- first (see heartbeat.lua).
--   next      the next free slot
--   priority  the next priority slot (see gateway/admission/calendar.py)
--   meter     theoretical arrival time of the fleet's admissions: a GCRA over all admissions
-- For each node there is what it has promised or holds: `seconds of the calendar` `last slot`
-- `time of the report`. A calendar that is further ahead than these reports explain is wrong, and is
-- set back to where they explain it.
local key, fleet, promises = KEYS[1], KEYS[2], KEYS[3]
local rate, burst, headroom = tonumber(ARGV[1]), tonumber(ARGV[2]), tonumber(ARGV[3])
local share, give_back, horizon = tonumber(ARGV[4]), tonumber(ARGV[5]), tonumber(ARGV[6])
local want, want_priority, want_vacated = tonumber(ARGV[7]), tonumber(ARGV[8]), tonumber(ARGV[9])
local admitted, hint = tonumber(ARGV[10]), tonumber(ARGV[11])
local node, epoch, mine, tolerance = ARGV[12], ARGV[13], tonumber(ARGV[14]), tonumber(ARGV[15])
local promised, promised_until = tonumber(ARGV[16]), tonumber(ARGV[17])
local want_lent = tonumber(ARGV[18])
local SLACK, SLACK_SHARE = 2, 0.1

if redis.call('HGET', fleet, 'epoch') ~= epoch then return { 'forgotten' } end
local time = redis.call('TIME')
local now = tonumber(time[1]) + tonumber(time[2]) / 1e6
  + tonumber(redis.call('HGET', fleet, 'shift') or '0')
if math.abs(mine - now) > tolerance then return { 'clock' } end

local function text(number) return string.format('%.6f', number) end
local earliest = now - burst / rate
local step = (1 + headroom) / rate
local state = redis.call('HMGET', key, 'next', 'priority', 'meter')
-- `hint` is how far the node knows that slots are promised: Redis may have lost its memory.
local next_free = math.max(tonumber(state[1] or '0') or 0, earliest, hint)
local next_priority = math.max(tonumber(state[2] or '0') or 0, now)
local meter = math.max(tonumber(state[3] or '0') or 0, earliest) + admitted / rate

if next_free - now > SLACK then
  local explained = promised
  local all = redis.call('HGETALL', promises)
  for index = 1, #all, 2 do
    if all[index] ~= node then
      local seconds, last, at = string.match(all[index + 1], '^(%S+) (%S+) (%S+)$')
      seconds, last, at = tonumber(seconds or '') or 0, tonumber(last or '') or 0, tonumber(at or '') or 0
      if last <= now then
        redis.call('HDEL', promises, all[index])
      else
        -- The time since its report has used up the same share of its promises.
        explained = explained + seconds * math.min(1, (last - now) / math.max(last - at, 0.001))
      end
    end
  end
  next_free = math.min(next_free, now + explained * (1 + SLACK_SHARE) + SLACK)
end
next_priority = math.min(next_priority, math.max(next_free, now))
-- A promise kept beyond the meter makes a debt, which is bounded; what comes back makes no more
-- credit than the burst.
meter = math.max(math.min(meter, now + burst / rate), earliest)
-- Room for devices that are due, beyond the share of their node. No node gets more than half of what
-- there is, because the others may ask next.
local room = math.floor((now - meter) * rate + 0.001)
local lent = math.max(0, math.min(want_lent, math.ceil(room / 2)))
meter = meter + lent / rate

local first_priority, got_priority = 0, 0
if want_priority > 0 and next_free > now and next_priority < next_free then
  first_priority, got_priority = next_priority, want_priority
  next_priority = next_priority + want_priority * step / share
  next_free = next_free + want_priority * step
end
local first, got = next_free, 0
if next_free - now <= horizon then
  got = want
  next_free = next_free + want * step
end
local vacated = 0
if want_vacated > 0 and next_free > now then
  vacated = math.max(0, math.min(want_vacated, math.floor((now - meter) * rate - give_back * burst)))
  meter = meter + vacated / rate
end
redis.call('HSET', key, 'next', text(next_free), 'priority', text(next_priority), 'meter', text(meter))
if next_free > now then
  local seconds = promised + (got + got_priority) * step
  local last = math.max(promised_until, next_free)
  redis.call('HSET', promises, node, text(seconds) .. ' ' .. text(last) .. ' ' .. text(now))
end
return { 'leased', text(now), text(first), tostring(got), text(first_priority),
         tostring(got_priority), tostring(vacated), text(next_free), tostring(lent) }

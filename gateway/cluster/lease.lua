-- The fleet's slot calendar: gives one node a block of slots, and takes its report.
--
-- The clock is Redis' own, so that nodes whose clocks differ still share one calendar.
--   next      the next free slot
--   priority  the next slot of those who go first (see gateway/admission/calendar.py)
--   meter     theoretical arrival time of the fleet's admissions: a GCRA over what was let in
local key = KEYS[1]
local rate, burst, headroom = tonumber(ARGV[1]), tonumber(ARGV[2]), tonumber(ARGV[3])
local share, give_back, horizon = tonumber(ARGV[4]), tonumber(ARGV[5]), tonumber(ARGV[6])
local want, want_priority, want_vacated = tonumber(ARGV[7]), tonumber(ARGV[8]), tonumber(ARGV[9])
local admitted, hint = tonumber(ARGV[10]), tonumber(ARGV[11])

local time = redis.call('TIME')
local now = tonumber(time[1]) + tonumber(time[2]) / 1e6
local earliest = now - burst / rate
local step = (1 + headroom) / rate
local state = redis.call('HMGET', key, 'next', 'priority', 'meter')
-- `hint` is what the node knows was promised: a Redis that lost its memory is told by its nodes.
local next_free = math.max(tonumber(state[1] or '0') or 0, earliest, hint)
local next_priority = math.max(tonumber(state[2] or '0') or 0, now)
local meter = math.max(tonumber(state[3] or '0') or 0, earliest) + admitted / rate

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
local function text(number) return string.format('%.6f', number) end
redis.call('HSET', key, 'next', text(next_free), 'priority', text(next_priority), 'meter', text(meter))
redis.call('PEXPIRE', key, 3600000)
return { text(now), text(first), tostring(got), text(first_priority), tostring(got_priority),
         tostring(vacated), text(next_free) }

#!lua flags=allow-oom
-- Puts messages that are in no place, or in several, into one; drops ids that have no record.
-- In doubt a message is sent once more rather than never: a claim counts before `due`, `due` before
-- a finished state.
--
-- ARGV[1] destination for which some may be parked though it is not their own, or ''
-- ARGV[2] count: ids (1–100)
-- ARGV[3…] id…, then (state, keep)… of each finished state
--   keep  how long a message is kept in it, ms
-- Returns {word…}
--   word  the place where it now is (leased, due, a finished state), 'dropped', or 'sound' if nothing
--         is wrong
-- needs: keys data arguments clock record finished places claims
check_data()
local other, count, now = ARGV[1], number(ARGV[2]), clock()
local keep = {}
for i = 3 + count, #ARGV, 2 do keep[ARGV[i]] = number(ARGV[i + 1]) end

-- Place → score; and in how many places it is.
local function scores(id, own)
  local at, places = {due = call('ZSCORE', DUE, id) or nil}, 0
  at.leased = call('ZSCORE', LEASES, id) or nil
  for state, key in pairs(FINISHED) do at[state] = call('ZSCORE', key, id) or nil end
  at.parked = own and call('ZSCORE', PARKED .. own, id) or nil
  at.stray = other ~= '' and other ~= own and call('ZSCORE', PARKED .. other, id) or nil
  for _ in pairs(at) do places = places + 1 end
  at.taken = call('ZSCORE', TAKEN, id) or nil
  return at, places
end

local function sound(record, claim, at, places)
  local out_of_due = at.leased or at.parked or at.stray
  return record and places == 1 and not claim == not at.leased and not at.taken == not out_of_due
end

-- The place where it belongs; its outcome decides only if it waits nowhere.
local function right_place(id, claim, at)
  if claim then return 'leased' end
  if at.due or at.leased or at.parked or at.stray or at.taken then return 'due' end
  local outcome = (call('HGET', PROGRESS, id) or ''):match('^%d+ %d+ (%a+) ')
  return FINISHED[outcome] and outcome or 'due'
end

local function put(id, place, due, at)
  if place == 'leased' then
    take_out_of_due({id}, {due, id})
    set_leases({at.leased or now, id}) -- over now, unless its holder renews it
  elseif place == 'due' then
    enqueue({due, id})
  else
    finish(place, {at[place] or now + keep[place], id}, math.huge)
  end
end

local function repair(id)
  local record, claim = call('HGET', PAYLOADS, id), call('HGET', CLAIMS, id)
  if claim and not split_claim(claim) then
    call('HDEL', CLAIMS, id)
    claim = false
  end
  if record == '' then record = false end
  local own = record and destination_of(record)
  local at, places = scores(id, own)
  if sound(record, claim, at, places) then return 'sound' end
  local dests = {}
  if own then append(dests, own) end
  if other ~= '' then append(dests, other) end
  remove_everywhere(id, dests)
  if not record then
    call('HDEL', CLAIMS, id)
    forget({id})
    return 'dropped'
  end
  local place = right_place(id, claim, at)
  local due = at.taken or at.due or at.parked or at.stray or scheduled_of(record)
  put(id, place, due, at)
  return place
end

local reply = {}
for i = 3, 2 + count do append(reply, repair(ARGV[i])) end
return reply

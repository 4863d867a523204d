#!lua flags=allow-oom
-- Cancels a message that waits. One that is leased stays: it may be on the wire, and "cancelled" would
-- be false.
--
-- ARGV[1] id
-- ARGV[2] limit_share: concurrency of a destination without settings, in this partition
-- Returns a word: 'ok', 'missing', 'in_flight' or 'finished'
-- needs: keys data arguments clock record finished places flow
check_data()
local id, limit_share = ARGV[1], number(ARGV[2])
local record = call('HGET', PAYLOADS, id)
if not record then return 'missing' end
local place, dest = place_of(id), destination_of(record)
if place == 'leased' then return 'in_flight' end
if FINISHED[place] then return 'finished' end
remove_waiting(id, dest)
forget({id})
unpark(dest, limit_share, clock(), nil, 1)
return 'ok'

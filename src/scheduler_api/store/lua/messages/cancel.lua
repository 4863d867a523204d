#!lua flags=allow-oom
-- Removes a message that waits; one on the wire stays, as a false "deleted" would be a lie.
--
-- ARGV[1] id   ARGV[2] limit of a destination
-- Returns a word: 'ok', 'missing', 'in_flight' or 'finished'
-- needs: keys data arguments clock record places finished flow
check_data()
local id, limit = ARGV[1], number(ARGV[2])
local record = call('HGET', PAYLOADS, id)
if not record then return 'missing' end
local where, dest = place(id), destination_of(record)
if where == 'leased' then return 'in_flight' end
if where == 'delivered' or where == 'failed' then return 'finished' end
call('ZREM', DUE, id)
call('ZREM', TAKEN, id)
if call('ZREM', PARKED .. dest, id) == 1 then still_parked(dest) end
forget({id})
unpark(dest, limit, clock(), nil, 1)
return 'ok'

#!lua flags=no-writes
-- Reads one message.
--
-- ARGV[1] id   ARGV[2] limit of a destination
-- Returns {place ('missing' if there is none), due ms or -1, record, progress, why it is parked (''
--          if it is not, or may go on), until when, ms (-1 if that is no matter of time)}
-- needs: keys data arguments clock record places flow
check_data()
local id, limit = ARGV[1], number(ARGV[2])
local due = call('ZSCORE', DUE, id) or call('ZSCORE', TAKEN, id) or -1
local record = call('HGET', PAYLOADS, id)
local where = record and place(id) or 'missing'
local _, why, opens_at
if where == 'parked' then _, why, opens_at = room(destination_of(record), limit, clock()) end
return {where, tonumber(due), record or '', call('HGET', PROGRESS, id) or '', why or '',
  opens_at or -1}

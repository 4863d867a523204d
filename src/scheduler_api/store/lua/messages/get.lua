#!lua flags=no-writes
-- Reads one message.
--
-- ARGV[1] id
-- ARGV[2] limit_share: concurrency of a destination without settings, in this partition
-- Returns {place, due, record, progress, hold, hold_until}
--   place       due, leased, parked, a finished state, or missing
--   due         ms; -1 if it is finished or missing
--   hold        why it is parked; '' if it is not, or may be sent now
--   hold_until  ms; -1 if time alone does not end it
-- needs: keys data arguments clock record places flow
check_data()
local id, limit_share = ARGV[1], number(ARGV[2])
local due = call('ZSCORE', DUE, id) or call('ZSCORE', TAKEN, id) or -1
local record = call('HGET', PAYLOADS, id)
local place = record and place_of(id) or 'missing'
local _, hold, hold_until
if place == 'parked' then _, hold, hold_until = room(destination_of(record), limit_share, clock()) end
return {place, tonumber(due), record or '', call('HGET', PROGRESS, id) or '', hold or '',
  hold_until or -1}

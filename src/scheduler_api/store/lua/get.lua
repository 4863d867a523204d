#!lua flags=no-writes
-- Reads one message.
--
-- ARGV[1] id
-- Returns {place ('missing' if there is none), due ms or -1, record, progress}
local id = ARGV[1]
local due = call('ZSCORE', DUE, id) or call('ZSCORE', TAKEN, id) or -1
local record = call('HGET', PAYLOADS, id)
return {record and place(id) or 'missing', tonumber(due), record or '',
  call('HGET', PROGRESS, id) or ''}

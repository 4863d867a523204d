#!lua flags=allow-oom
-- Gives back claims that were not sent; their attempts do not change. A call without claims removes
-- the process from `workers`, which has the nonce of its last claim. A call with claims leaves it
-- there: the process may still repeat a claim whose reply was lost.
--
-- ARGV[1] worker_id
-- ARGV[2] limit_share: concurrency of a destination without settings, in this partition
-- ARGV[3…] (id, fence, permit)… of each message (0–100)
--   permit  1: the process gives a permit back with it; 0: it had none, or passed it on
-- Returns {word…}
--   word  'ok', or 'stale' for a claim that is no longer held
-- needs: keys arguments clock places claims flow
local worker_id, limit_share, now = ARGV[1], number(ARGV[2]), clock()
assert(#ARGV % 3 == 2, 'three arguments a message')

local asked, reply = {}, {}
local ids, dues = {}, {} -- of the claims that end
local ended, given_back = {}, {} -- destination → how many claims; with how many of them a permit
for i = 3, #ARGV, 3 do append(asked, ARGV[i]) end
local claims = claims_of(asked)
for i = 3, #ARGV, 3 do
  local id = ARGV[i]
  local dest = held(claims[id], ARGV[i + 1], worker_id)
  if dest then
    claims[id] = nil
    append(ids, id)
    append(dues, due_of(id, now), id)
    ended[dest] = (ended[dest] or 0) + 1
    if ARGV[i + 2] == '1' then given_back[dest] = (given_back[dest] or 0) + 1 end
  end
  append(reply, dest and 'ok' or 'stale')
end
drop_claims(ids, worker_id, ended, given_back)
enqueue(dues)
for dest, count in pairs(ended) do unpark(dest, limit_share, now, nil, count) end
if #reply > 0 then
  call('SPUBLISH', WAKEUP, now)
else
  call('HDEL', WORKERS, worker_id)
end
return reply

-- The messages that a claim may lease.
-- needs: keys arguments

local READ_IDS = 128 -- ids read from each end of what is due

-- Due messages, alternately the oldest and the newest: a backlog must not hide fresh messages.
-- `latest`: now, or some ms later. Returns id, due ms, id, due ms …
local function due_now(now, latest)
  local old = call('ZRANGE', DUE, '-inf', latest, 'BYSCORE', 'LIMIT', 0, READ_IDS, 'WITHSCORES')
  if #old < 2 * READ_IDS then return old end
  -- With so many overdue, nothing is leased ahead: it would wait in a slot that another could use.
  local new = call('ZRANGE', DUE, now, '-inf', 'BYSCORE', 'REV', 'LIMIT', 0, READ_IDS, 'WITHSCORES')
  if #new < 2 * READ_IDS then return old end -- most are due only in a moment; none is hidden
  local both, seen = {}, {}
  for i = 1, 2 * READ_IDS, 2 do
    for _, from in ipairs({old, new}) do
      if not seen[from[i]] then
        seen[from[i]] = true
        append(both, from[i], from[i + 1])
      end
    end
  end
  return both
end

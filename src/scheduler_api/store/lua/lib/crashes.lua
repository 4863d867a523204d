-- Claims that ended without an outcome, as their process died: each is counted as a crash.
-- needs: keys arguments finished places claims flow

-- Attempts, crashes with this one, and the log. A progress is "attempts crashes outcome at\n" and the
-- log; the log of a message that was never tried is an empty array.
local function one_more_crash(id)
  local progress = call('HGET', PROGRESS, id) or '0 0 retry 0\n\144'
  local attempts, crashes, log = progress:match('^(%d+) (%d+) %a+ %d+\n(.*)$')
  return attempts or 0, (crashes or 0) + 1, log or '\144'
end

-- Ends one claim of a process: the message is due again, or has failed after `max_crashes` crashes. A
-- failed one is kept for `keep` ms. Returns whether it is due again.
local function take_back(id, dest, worker_id, now, max_crashes, keep, max_kept)
  local due = due_of(id, now)
  local attempts, crashes, log = one_more_crash(id)
  local outcome = crashes >= max_crashes and 'failed' or 'retry'
  local progress = table.concat({attempts, ' ', crashes, ' ', outcome, ' ', now, '\n', log})
  drop_claims({id}, worker_id, {[dest] = 1}, {})
  if outcome == 'failed' and keep <= 0 then
    forget({id})
    return false
  end
  call('HSET', PROGRESS, id, progress)
  if outcome == 'failed' then
    finish('failed', {now + keep, id}, max_kept)
    return false
  end
  enqueue({due, id})
  return true
end

-- Ends the claims of these messages, and unparks what may then be claimed. `dests`: id → destination;
-- `holders`: id → worker id. Returns how many messages are due again, and the ids of those that failed.
local function take_back_all(ids, dests, holders, limit_share, now, max_crashes, keep, max_kept)
  local returned, failed, opened = 0, {}, {}
  for _, id in ipairs(ids) do
    opened[dests[id]] = true
    if take_back(id, dests[id], holders[id], now, max_crashes, keep, max_kept) then
      returned = returned + 1
    else
      append(failed, id)
    end
  end
  for dest in pairs(opened) do unpark(dest, limit_share, now) end
  return returned, failed
end

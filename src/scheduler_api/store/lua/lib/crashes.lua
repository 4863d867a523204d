-- Claims of processes that died: they are taken back, and each is counted as a crash.
-- needs: keys claims finished

-- "attempts crashes outcome at\n" and the log; the log of a message never tried is an empty array.
local function one_more_crash(id)
  local progress = call('HGET', PROGRESS, id) or '0 0 retry 0\n\144'
  local attempts, crashes, rest = progress:match('^(%d+) (%d+) %a+ %d+\n(.*)$')
  return attempts or 0, (crashes or 0) + 1, rest or '\144'
end

-- Ends the claim of a process that died: the message waits again, or has failed if it outlived
-- `max_crashes` processes. Returns whether it waits.
local function take_back(id, dest, now, max_crashes, keep, most)
  local due = due_of(id, now)
  local attempts, crashes, log = one_more_crash(id)
  local verdict = crashes >= max_crashes and 'failed' or 'retry'
  local progress = table.concat({attempts, ' ', crashes, ' ', verdict, ' ', now, '\n', log})
  drop_claims({id}, {[dest] = 1})
  if verdict == 'failed' and keep <= 0 then
    forget({id})
    return false
  end
  call('HSET', PROGRESS, id, progress)
  if verdict == 'failed' then
    shelve(FAILED, {now + keep, id}, most)
    return false
  end
  call('ZADD', DUE, due, id)
  return true
end

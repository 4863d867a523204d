-- Whether this process may use the data. Every script checks it before anything else, except those
-- that end claims: a process that is older than the data takes no new work, but settles what it holds.
-- needs: keys

-- script_text.py writes the numbers here: the oldest and the newest schema that this version can read,
-- and the number of partitions that the process is set up with.
local OLDEST_READABLE, NEWEST_SCHEMA, PARTITIONS = __OLDEST_READABLE__, __SCHEMA__, __PARTITIONS__

-- Raises SCHEMA if the schema is not one of these, PARTITIONS if the data have another number
-- of partitions than the process, UNMARKED if the number is missing: the caller would otherwise use a
-- partition that no other process reads. `may_be_unmarked`: the number may be missing.
-- Returns the schema (0: none) and, as they are in the same hash, the last fence of any process, and
-- whether `withheld` has entries.
local function check_data(may_be_unmarked)
  local found = call('HMGET', META, 'schema', 'partitions', 'fence', 'withheld')
  local schema, partitions = tonumber(found[1] or 0), tonumber(found[2])
  if schema > NEWEST_SCHEMA or schema > 0 and schema < OLDEST_READABLE then
    error({err = 'SCHEMA ' .. schema})
  end
  if partitions and partitions ~= PARTITIONS then
    error({err = 'PARTITIONS ' .. partitions .. ' ' .. PARTITIONS})
  end
  if not partitions and not may_be_unmarked then error({err = 'UNMARKED'}) end
  return schema, tonumber(found[3] or 0), found[4] and true
end

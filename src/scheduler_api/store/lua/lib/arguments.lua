-- Arguments: of the script, and of the commands that it calls.

-- An argument that is a number; raises otherwise. A script reads its numbers before it writes
-- anything, as a script that fails does not roll back.
local function number(argument)
  return tonumber(argument) or error('not a number: ' .. tostring(argument))
end

-- Adds one value to the end of a list, or two.
local function append(list, first, second)
  local n = #list
  list[n + 1], list[n + 2] = first, second
end

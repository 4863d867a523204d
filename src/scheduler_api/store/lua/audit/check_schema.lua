#!lua flags=allow-oom
-- Marks a partition that is new, or of an older schema, with this schema and the number of partitions.
--
-- ARGV[1] schema
-- ARGV[2] partitions: their number
-- ARGV[3] 1: also mark a partition that has no number yet
-- Returns 1 if the partition is marked, 0 if it has no number and got none
-- needs: keys data arguments
local current = check_data(true)
local schema, partitions = number(ARGV[1]), number(ARGV[2])
if ARGV[3] ~= '1' and call('HEXISTS', META, 'partitions') == 0 then return 0 end
call('HSETNX', META, 'partitions', partitions)
if schema > current then call('HSET', META, 'schema', schema) end
return 1

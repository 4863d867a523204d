#!lua flags=allow-oom
-- Marks the data with this schema, if they are new or of an older one, and divided as is asked.
--
-- ARGV[1] schema   ARGV[2] number of partitions
-- Returns the number of partitions that the data are divided into
local schema, partitions = number(ARGV[1]), number(ARGV[2])
call('HSETNX', META, 'partitions', partitions)
local found = tonumber(call('HGET', META, 'partitions'))
if found == partitions and schema > SCHEMA then call('HSET', META, 'schema', schema) end
return found

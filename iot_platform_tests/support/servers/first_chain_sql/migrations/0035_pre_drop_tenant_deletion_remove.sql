-- It takes a range of ids now (repeatable/tenant_deletion.sql); a function with other parameters would be a second one beside it.
DROP FUNCTION IF EXISTS tenant_deletion_remove(integer, text, timestamptz, timestamptz, integer);

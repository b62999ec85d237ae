-- Reads what `pgbackrest info --output=json` wrote into :file, keeps it in database_backup (not before the platform has made that), and says which
-- backup is due: full, diff, or nothing.
\set info `cat :'file'`
CREATE TEMPORARY TABLE held AS
SELECT b ->> 'label' AS label, b ->> 'type' AS type, to_timestamp((b #>> '{timestamp,stop}')::bigint) AS ended_at
FROM jsonb_array_elements(:'info'::jsonb -> 0 -> 'backup') b
WHERE NOT (b ->> 'error')::boolean;
SELECT to_regclass('public.database_backup') IS NOT NULL AS kept \gset
\if :kept
BEGIN;
DELETE FROM public.database_backup;
INSERT INTO public.database_backup (label, type, ended_at, reported_at) SELECT label, type, ended_at, now() FROM held;
COMMIT;
\endif
SELECT CASE WHEN coalesce(max(ended_at) FILTER (WHERE type = 'full') < now() - :full_days * interval '1 day' + interval '1 hour', true) THEN 'full' ELSE 'diff' END
FROM held
HAVING coalesce(max(ended_at) < date_trunc('day', now() - interval '4 hours 13 minutes', 'UTC') + interval '4 hours 13 minutes', true);

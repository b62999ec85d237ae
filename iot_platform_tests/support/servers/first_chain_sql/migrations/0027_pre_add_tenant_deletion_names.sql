-- The cut of a tenant's deletion only draws a line; the names behind it go in batches after it (repeatable/tenant_deletion.sql).
ALTER TABLE tenant_deletion ADD COLUMN last_series_id integer NOT NULL DEFAULT 0;
ALTER TABLE tenant_deletion ADD COLUMN last_source_id integer NOT NULL DEFAULT 0;
ALTER TABLE tenant_deletion ADD COLUMN names_gone_at timestamptz;
UPDATE tenant_deletion SET names_gone_at = cut_at WHERE cut_at IS NOT NULL;  -- cuts so far took the names along
COMMENT ON COLUMN tenant_deletion.cut_at IS
    'When the line was drawn: what was committed before is removed, what comes later is the data of a new tenant of that id.';
COMMENT ON COLUMN tenant_deletion.last_series_id IS 'The newest series at the cut: the tenant''s series up to it are removed, later ones are of a new tenant. As last_source_id.';
COMMENT ON COLUMN tenant_deletion.names_gone_at IS 'When the last of these series and sources was deleted; null before.';

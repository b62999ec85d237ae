-- Of a tenant that was deleted after this stretch was laid out nothing is written any more: the deletion may be past these tables.
DELETE FROM quality_found f
WHERE f.tenant_id IN (SELECT d.tenant_id FROM tenant_deletion d WHERE d.cut_at IS NOT NULL)
  AND NOT EXISTS (SELECT FROM project p WHERE p.tenant_id = f.tenant_id)

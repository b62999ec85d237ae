-- Findings of quality rules; incidents that are still open are never removed.
INSERT INTO retention_policy (table_name, keep) VALUES ('quality_result', '90 days'), ('quality_incident', '400 days') ON CONFLICT DO NOTHING;

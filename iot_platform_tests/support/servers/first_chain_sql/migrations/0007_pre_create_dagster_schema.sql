-- Dagster keeps its runs and events here unless IOT_DAGSTER_STORAGE_URL names another place; it creates its own tables.
CREATE SCHEMA IF NOT EXISTS dagster;
COMMENT ON SCHEMA dagster IS 'Dagster''s own tables; nothing of the platform reads them.';

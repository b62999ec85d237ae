-- What operators correct for their own tenant, for messages that the platform's rules of decoding refuse (docs/live.md).
CREATE TABLE decode_correction (
    correction_id bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    tenant_id text NOT NULL CHECK (tenant_id <> ''),
    project_id text NOT NULL DEFAULT '',
    topic_filter text NOT NULL DEFAULT '',
    reason text NOT NULL DEFAULT '',
    received_from timestamptz NOT NULL,
    received_to timestamptz CHECK (received_to >= received_from),
    said jsonb NOT NULL CHECK (jsonb_typeof(said) = 'object'),
    rules jsonb NOT NULL CHECK (jsonb_typeof(rules) = 'object'),
    action_id bigint UNIQUE,
    created_at timestamptz NOT NULL DEFAULT now(),
    created_by text NOT NULL DEFAULT '',
    ended_at timestamptz,
    ended_by text NOT NULL DEFAULT ''
);
CREATE INDEX decode_correction_tenant_id_idx ON decode_correction (tenant_id, correction_id);
COMMENT ON TABLE decode_correction IS
    'One row is one correction: other rules by which a tenant''s messages are decoded that the platform''s own refuse. The oldest that '
    'takes a message counts, and rows never change but for their end, so what one made is made again whenever the message is decoded '
    'again.';
COMMENT ON COLUMN decode_correction.project_id IS 'Only messages whose topic names this project; empty: all of the tenant.';
COMMENT ON COLUMN decode_correction.topic_filter IS
    'Also messages whose topic names no tenant by the platform''s rules, if it fits this MQTT topic filter; empty: none of them. Tenants'' '
    'own operators set none, so nobody takes what may be another''s.';
COMMENT ON COLUMN decode_correction.reason IS 'Only messages that are refused for this reason; empty: for any.';
COMMENT ON COLUMN decode_correction.received_from IS 'Messages received in [received_from, received_to); null: no end yet.';
COMMENT ON COLUMN decode_correction.said IS 'What the operator set, named as the settings are.';
COMMENT ON COLUMN decode_correction.rules IS
    'All of it: said, and the platform''s settings of that time for the rest. It stays the same when those change.';
COMMENT ON COLUMN decode_correction.action_id IS 'The action (console_action) that made it; null: iot project correct.';

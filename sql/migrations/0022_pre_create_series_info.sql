-- What people say of a series, and what they do about incidents.
CREATE TABLE series_info (
    series_id integer PRIMARY KEY,
    display_name text NOT NULL DEFAULT '',
    unit text NOT NULL DEFAULT '',
    description text NOT NULL DEFAULT '',
    valid_min double precision,
    valid_max double precision,
    changed_at timestamptz NOT NULL DEFAULT now(),
    changed_by text NOT NULL DEFAULT '',
    CHECK (valid_min <= valid_max)
) WITH (fillfactor = 70);
COMMENT ON TABLE series_info IS
    'One row is what people say of one series: name, unit, description and the range that its values should be in.';
COMMENT ON COLUMN series_info.unit IS 'Empty: the unit that the payload named (series.unit).';
COMMENT ON COLUMN series_info.valid_min IS 'A value below it is not believed; null: no such limit. As valid_max.';

CREATE TABLE series_info_change (
    change_id bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    series_id integer NOT NULL,
    display_name text NOT NULL,
    unit text NOT NULL,
    description text NOT NULL,
    valid_min double precision,
    valid_max double precision,
    changed_at timestamptz NOT NULL DEFAULT now(),
    changed_by text NOT NULL
);
CREATE INDEX series_info_change_series_id_idx ON series_info_change (series_id, change_id DESC);
COMMENT ON TABLE series_info_change IS 'One row is one change of series_info: what the row was afterwards, when and by whom.';

ALTER TABLE quality_incident
    ADD COLUMN silenced_until timestamptz, ADD COLUMN silence_reason text NOT NULL DEFAULT '',
    ADD COLUMN silenced_by text NOT NULL DEFAULT '',
    ADD COLUMN acknowledged_at timestamptz, ADD COLUMN acknowledged_by text NOT NULL DEFAULT '';
COMMENT ON COLUMN quality_incident.silenced_until IS 'Until then nobody is told of it, for silence_reason. Null: it is not silenced.';
COMMENT ON COLUMN quality_incident.acknowledged_at IS 'When a user of the console said that he takes care of it; null: nobody did.';

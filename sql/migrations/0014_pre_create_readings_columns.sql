-- Every message keeps its readings, and what becomes of conflicts is a choice by project.
CREATE TABLE project_option (
    tenant_id text NOT NULL DEFAULT '',
    project_id text NOT NULL DEFAULT '',
    name text NOT NULL,
    value text NOT NULL,
    changed_at timestamptz NOT NULL DEFAULT now(),
    changed_by text NOT NULL DEFAULT '',
    PRIMARY KEY (tenant_id, project_id, name),
    CHECK (tenant_id <> '' OR project_id = ''),
    CONSTRAINT project_option_value_check CHECK ((name, value) IN (
        ('conflicts', 'first'), ('conflicts', 'last'), ('conflicts', 'keep'),
        ('retained', 'changes'), ('retained', 'all'),
        ('numbers_in_strings', 'off'), ('numbers_in_strings', 'on')
    ))
);
COMMENT ON TABLE project_option IS
    'One row is one option of how messages become measurements: of everybody (tenant and project empty), of one tenant, or of one project. '
    'The most specific one counts; without any, the default of the release. Running drains take a change with their next shift.';
COMMENT ON COLUMN project_option.name IS
    'conflicts: what becomes of another value for a series and time that has one. retained: whether a retained message without a time of '
    'its own is stored when it only repeats the value before it. numbers_in_strings: whether "21.5" is a number.';

ALTER TABLE measurement ADD COLUMN flags smallint;
COMMENT ON COLUMN measurement.flags IS
    'Null: an ordinary reading. 1: it stands some microseconds behind its time, because another reading was there (receive times, or '
    'the project''s option conflicts = keep). 2: from a retained message without a time of its own: a state, received now, set at some '
    'time before.';
ALTER TABLE series_latest ADD COLUMN flags smallint;
COMMENT ON COLUMN series_latest.flags IS 'As measurement.flags.';
ALTER TABLE message ADD COLUMN time_shift_us integer;
COMMENT ON COLUMN message.time_shift_us IS
    'By how many microseconds the measurements that carry its receive time stand behind it, because those of another message were there. '
    'Null: by none. Decoding the message again gives the same places.';

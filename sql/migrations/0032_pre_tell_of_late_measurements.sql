-- The drain marks what it received late from here on; a program of the release before writes rows without the mark, and reads past it.
COMMENT ON COLUMN measurement.flags IS
    'Null: an ordinary reading. 1: it stands some microseconds behind its time, because another reading was there (receive times, or '
    'the project''s option conflicts = keep). 2: from a retained message without a time of its own: a state, received now, set at some '
    'time before. 4: late, received more than 120 s after its time.';

-- What every rule has judged, as long as intake would not take it for new.
WITH late AS (
    DELETE FROM quality_late WHERE feed_position <= %(judged)s
), forgotten AS (
    DELETE FROM quality_cadence WHERE last_received_at < %(horizon)s::timestamptz - interval '90 days'
), unused AS (
    DELETE FROM quality_pause WHERE begun_at < %(horizon)s::timestamptz - interval '90 days'
), unjudged AS (  -- of a rule that is switched off
    DELETE FROM quality_gap WHERE noticed_at < %(horizon)s::timestamptz - interval '7 days'
)
DELETE FROM quality_feed WHERE feed_position <= %(judged)s AND committed_at < %(since)s

"""Last stage: keeps Dagster's own history small."""

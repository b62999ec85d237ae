"""Last stage: keeps the database and Dagster's own history small."""

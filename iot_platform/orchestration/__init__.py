"""How a Dagster run does what defs/ defines. Dagster's private API is used in dagster_private.py only."""

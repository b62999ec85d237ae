"""Kafka itself: why a connection fails, what topics are configured as and whether that keeps the promise. Imports no Dagster, no numpy."""

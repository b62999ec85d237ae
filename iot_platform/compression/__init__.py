"""Compression of old chunks, and how long the disk will do. Knows neither Kafka nor Dagster."""

"""MQTT brokers of different habits, from packages, and what the ingest daemon makes of each."""

"""The drain: Kafka partitions into the database, each batch exactly once."""

"""What the Dagster definitions stand on: the settings, reading of Kafka's offsets, shift decisions, bounded event writing."""

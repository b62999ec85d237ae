"""Finds the first copy of records that came twice: redelivered by MQTT, or written to Kafka twice."""

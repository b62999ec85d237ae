"""Stage 1: the MQTT broker and the Kafka topic, observed from outside."""

"""Stage 2: the tables that the drain fills, by Kafka partition, tenant and project."""

"""History from files (InfluxDB's line protocol, CSV, Parquet) by the contract of live messages. Knows neither Kafka nor Dagster."""

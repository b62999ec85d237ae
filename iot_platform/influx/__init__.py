"""InfluxDB as a second store that follows the ledger: every measurement that TimescaleDB has, with the same value. Knows no Dagster."""

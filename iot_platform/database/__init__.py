"""The platform's PostgreSQL: connections, migrations, locks. Knows neither Kafka nor Dagster."""

from iot_platform.database.connection import connect
from iot_platform.database.errors import DatabaseError, EditionError, LockTimeoutError, MigrationError, SchemaError
from iot_platform.database.migrate import migrate, newer, pending

__all__ = ["DatabaseError", "EditionError", "LockTimeoutError", "MigrationError", "SchemaError", "connect", "migrate", "newer", "pending"]

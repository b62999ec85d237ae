"""Files that the package reads beside its code. In a checkout `sql` and `deploy` link to its top-level folders, a wheel holds copies."""

from pathlib import Path
from typing import Final

PACKAGE: Final = Path(__file__).resolve().parent
SQL: Final = PACKAGE / "sql"
DEPLOY: Final = PACKAGE / "deploy"

"""An import in a process of its own: python -m … FILE MAPPING."""

import sys
from pathlib import Path

from iot_platform.imports.run import Import
from iot_platform.settings import get_settings

if __name__ == "__main__":
    Import(get_settings(), Path(sys.argv[1]), Path(sys.argv[2])).run()

"""An evaluation of all quality rules in a process of its own: python -m … HORIZON."""

import sys
from datetime import datetime

from iot_platform.quality import evaluate
from iot_platform.settings import get_settings

if __name__ == "__main__":
    evaluate(get_settings(), at=datetime.fromisoformat(sys.argv[1]))

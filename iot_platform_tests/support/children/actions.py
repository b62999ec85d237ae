"""Carries out what users of the console asked for, in a process of its own: python -m … short|replays."""

import sys
from contextlib import closing

from iot_platform.actions.queue import carry_out_short
from iot_platform.actions.replays import carry_out_replays
from iot_platform.database import connect
from iot_platform.settings import get_settings

if __name__ == "__main__":
    if sys.argv[1] == "short":
        with closing(connect(get_settings())) as connection:
            carry_out_short(get_settings(), connection)
    else:
        carry_out_replays(get_settings())

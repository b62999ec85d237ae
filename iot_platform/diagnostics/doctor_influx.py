"""What `iot doctor` says about each InfluxDB that follows: whether it answers and has the database, and whether it keeps up."""

from collections.abc import Iterator
from contextlib import closing
from importlib.util import find_spec

import psycopg2

from iot_platform.diagnostics.finding import Finding
from iot_platform.influx import status
from iot_platform.influx.errors import InfluxConfigError, InfluxRefusedError, InfluxUnavailableError
from iot_platform.influx.target import VARIABLE, Target, targets
from iot_platform.settings import Settings


def influx_findings(settings: Settings) -> Iterator[Finding]:
    """Nothing where IOT_INFLUX_URL is not set; what the database knows of a sink only where that answers."""
    try:
        known = targets(settings)
    except InfluxConfigError as error:
        yield Finding("InfluxDB", "bad", str(error), f"correct {VARIABLE}")
        return
    if known and find_spec("urllib3") is None:
        yield Finding("InfluxDB", "bad", f"{VARIABLE} is set, but the package urllib3 is missing", "pip install 'iot-platform[influx]'")
        return
    states = _states(settings) if known else {}
    for each in known:
        yield _answers(each)
        if state := states.get(each.name):
            yield from keeps_up(state)


def _answers(target: Target) -> Finding:
    from iot_platform.influx.client import InfluxClient, identifier  # urllib3

    what = f"InfluxDB {target.name}"
    try:
        with InfluxClient(target) as client:
            client.query(f"SHOW RETENTION POLICIES ON {identifier(target.database)}")
    except InfluxConfigError as error:
        return Finding(what, "bad", str(error), f"correct {VARIABLE}, or make the database there")
    except InfluxUnavailableError as error:
        return Finding(what, "bad", str(error), f"start it, or correct {VARIABLE}; what it lacks is sent when it answers")
    except InfluxRefusedError as error:  # of a version that has no such statement: it answers
        return Finding(what, "note", f"answers, but does not say what it keeps: {error}")
    return Finding(what, "ok", f"{target.address} answers and has database {target.database}")


def keeps_up(state: status.SinkStatus) -> Iterator[Finding]:
    """What is worth a look of a sink."""
    what = f"InfluxDB {state.sink}"
    if state.error or state.behind_seconds > status.LATE_SECONDS:
        text = f"lacks {state.lag:,} records, the oldest committed {state.behind_seconds:,.0f} s ago"
        text += f": {state.error}" if state.error else ""
        yield Finding(what, "risk", text, "`iot influx status`; after a full disk restart influxd; nothing is lost meanwhile")
    if state.missing:
        text = f"refused {state.missing:,} measurements"
        yield Finding(what, "note", text, "`iot influx status` says why; then `iot influx backfill`")


def _states(settings: Settings) -> dict[str, status.SinkStatus]:
    from iot_platform.database import DatabaseError, connect

    try:
        with closing(connect(settings, "reader", "iot-doctor")) as connection:
            return {state.sink: state for state in status.read(connection)}
    except (DatabaseError, psycopg2.Error):
        return {}

"""What all dashboards share: stable uid, tags, the links between them."""

from typing import Final

from grafana_foundation_sdk.builders import dashboard as builders
from grafana_foundation_sdk.models import dashboard

TAG: Final = "iot-platform"


def board(name: str, title: str, description: str, since: str) -> builders.Dashboard:
    """An empty dashboard with uid iot-<name>; it opens on the range from `since` until now, refreshed every minute."""
    link = builders.DashboardLink("IoT platform").type(dashboard.DashboardLinkType.DASHBOARDS).tags([TAG]).as_dropdown(True)
    link = link.icon("external link").keep_time(True).include_vars(True)
    made = builders.Dashboard(title).uid(f"iot-{name}").description(description).tags([TAG]).link(link)
    made = made.time(since, "now").timezone("browser").refresh("1m").tooltip(dashboard.DashboardCursorSync.CROSSHAIR)
    return made.timepicker(builders.TimePicker().refresh_intervals(["30s", "1m", "5m", "15m", "1h"])).readonly()

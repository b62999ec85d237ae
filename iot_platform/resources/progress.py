"""The drain's progress as the figures that materializations show."""

from typing import TYPE_CHECKING

from iot_platform.resources.accounting import Figures
from iot_platform.resources.materializations import PartitionFigures

if TYPE_CHECKING:
    from iot_platform.telemetry.drain import Progress


def partition_figures_of(progress: "Progress") -> dict[int, PartitionFigures]:
    """Figures by Kafka partition."""
    raise NotImplementedError


def project_figures_of(progress: "Progress") -> dict[tuple[str, str], Figures]:
    """Figures by (tenant, project)."""
    raise NotImplementedError

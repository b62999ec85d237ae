"""A job of Dagster's whose run says something in every way there is, and fails."""

import logging
import warnings

import dagster as dg

from iot_platform.logs import get_logger

log = get_logger("iot_platform.talking")


@dg.op
def talk(context: dg.OpExecutionContext) -> None:
    """Says it."""
    context.log.info("two\nlines")
    log.info("ours", figure=7)
    log.error("fault_of_ours", text='a "quoted"\nvalue')
    dg.get_dagster_logger().warning("by Dagster's logger")
    logging.getLogger("some.library").warning("of a library: %s", "text")
    warnings.warn("a warning", UserWarning, stacklevel=1)
    raise ValueError("the op fails\non purpose")


@dg.job(executor_def=dg.in_process_executor)  # as all of ours
def talking() -> None:
    """One op."""
    talk()


definitions = dg.Definitions(jobs=[talking])

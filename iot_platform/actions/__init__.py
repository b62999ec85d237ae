"""Writes that users of the console ask for: what they may ask, and how it is done with the writer's rights, each exactly once.
Imports no dagster."""

from iot_platform.actions.errors import ActionError
from iot_platform.actions.requests import KINDS, Request, parse_request

__all__ = ["KINDS", "ActionError", "Request", "parse_request"]

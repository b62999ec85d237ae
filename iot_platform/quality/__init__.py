"""Data quality: rules in SQL over what is new, their incidents, and the settings of both. Knows nothing of Dagster."""

from iot_platform.quality.errors import BusyError, QualityError, RulesError
from iot_platform.quality.evaluate import Evaluation, RuleOutcome, evaluate
from iot_platform.quality.statements import RULES

__all__ = ["RULES", "BusyError", "Evaluation", "QualityError", "RuleOutcome", "RulesError", "evaluate"]

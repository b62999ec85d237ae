"""Dagster definitions by stage: ingestion → telemetry → rollups → quality → maintenance. They say what exists; orchestration/ says how
a run does it. Each stage is a package with DEFINITIONS, from assets, checks, jobs, schedules and sensors as far as it has them."""

import warnings

import dagster as dg

# backfill_policy and observable multi-assets are marked beta; the exact Dagster version is pinned.
warnings.filterwarnings("ignore", category=dg.BetaWarning)

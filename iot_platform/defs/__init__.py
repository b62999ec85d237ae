"""Dagster definitions by stage: ingestion → telemetry → maintenance. They say what exists; how it works is elsewhere."""

import warnings

import dagster as dg

# backfill_policy and observable multi-assets are marked beta; the exact Dagster version is pinned.
warnings.filterwarnings("ignore", category=dg.BetaWarning)

"""Dagster resources: what definitions are given by name."""

"""Tenants as a whole: who may read what. Imports no dagster."""

"""Tenants as a whole: who may read what (access), what there is (listing), taking it out (export, verify), deleting it (deletion).
Imports no dagster."""

"""Grafana dashboards as code; not installed, the generator is a tool of this checkout."""

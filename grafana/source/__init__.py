"""Source of grafana/dashboards: `make dashboards` writes the JSON files."""

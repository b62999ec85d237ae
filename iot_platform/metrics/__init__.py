"""`iot metrics`: what the platform's own /metrics says, and where each figure comes from."""

"""Programs of the platform as processes of their own that kill themselves at a named point: python -m …."""

"""Programs of the platform as processes of their own, python -m …, and what kills them at a point of their protocol."""

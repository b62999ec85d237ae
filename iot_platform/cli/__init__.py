"""The `iot` command: arguments and screens. What it shows and does is elsewhere."""

"""A seeded fleet of devices that remembers what it published and what must become of it."""

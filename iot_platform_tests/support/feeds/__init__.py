"""Data for tests: written as production writes it, as a fleet would, or as no fleet should."""

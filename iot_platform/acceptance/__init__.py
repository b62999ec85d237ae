"""Acceptance of an installation: eight weeks of checks, run on the real servers."""

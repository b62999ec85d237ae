"""Backups of the database with pgBackRest: made, listed, verified, restored, and restored for practice."""

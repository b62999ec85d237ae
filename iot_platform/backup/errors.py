"""What can go wrong with backups."""


class BackupError(Exception):
    """A backup was not made, or not restored, or nothing can be said about it; the message names cause and remedy. Retry after following
    it."""

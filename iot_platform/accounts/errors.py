"""What can be wrong with an account."""


class AccountError(Exception):
    """A user, grant or key can't be made or changed as asked; the message says why. Never retry."""


class NoSuchAccountError(AccountError):
    """There is no such user, tenant or key. Never retry."""


class TakenError(AccountError):
    """The name is taken. Never retry with the same name."""

"""Passwords of users: Argon2id by OWASP's parameters, 50 ms of one core and 19 MiB for each; call it in a thread."""

import secrets
import unicodedata
from functools import cache
from typing import Final

from argon2 import PasswordHasher
from argon2.exceptions import InvalidHashError, VerificationError

from iot_platform.accounts.errors import AccountError

LEAST_CHARACTERS: Final = 12
MOST_CHARACTERS: Final = 1024
_HASHER: Final = PasswordHasher(time_cost=2, memory_cost=19 * 1024, parallelism=1)


def hashed(password: str) -> str:
    """The hash to store. Raises AccountError: too short, or too long."""
    if not LEAST_CHARACTERS <= len(password) <= MOST_CHARACTERS:
        raise AccountError(f"a password has {LEAST_CHARACTERS} to {MOST_CHARACTERS} characters")
    return _HASHER.hash(_normal(password))


def matches(password: str, stored: str | None) -> bool:
    """Whether it is the password; as slow where nothing is stored."""
    try:
        return _HASHER.verify(stored or nobodys(), _normal(password)) and stored is not None
    except (VerificationError, InvalidHashError):
        return False


@cache
def nobodys() -> str:
    """Compared where there is no such user, so that the answer takes as long. The first call is slow: make it before it counts."""
    return _HASHER.hash(secrets.token_hex())


def outdated(stored: str) -> bool:
    """Whether the hash has other parameters than now; after a login it is made anew."""
    return _HASHER.check_needs_rehash(stored)


def _normal(password: str) -> str:
    """One keyboard writes é as one character, another as two."""
    return unicodedata.normalize("NFKC", password)

"""The form of the keys that we give out: `cg_<id>_<secret><checksum>`.

The beginning is what secret scanners look for, the id what people and logs may see, the secret 238 random bits, and the
checksum tells a mistyped key from an unknown one before anything is looked up. Only the SHA-256 of the whole is kept:
of a secret that long nothing slower is needed.
"""

from __future__ import annotations

import re
import secrets
from hashlib import sha256
from zlib import crc32

ID = re.compile(r"[A-Za-z0-9](?:[A-Za-z0-9-]{0,62}[A-Za-z0-9])?")

_DIGITS = "0123456789ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz"
_ID_DIGITS = "0123456789abcdefghjkmnpqrstvwxyz"  # without those that look alike
_KEY = re.compile(rb"cg_([A-Za-z0-9-]{1,64})_([0-9A-Za-z]{40})([0-9A-Za-z]{6})")


def new_id() -> str:
    """A random one; it begins with a letter, so that YAML takes it for text."""
    return secrets.choice(_ID_DIGITS[10:]) + "".join(secrets.choice(_ID_DIGITS) for _ in range(9))


def new_key(identity: str) -> str:
    """A random key with this id."""
    start = f"cg_{identity}_{''.join(secrets.choice(_DIGITS) for _ in range(40))}"
    return start + _checksum(start.encode())


def is_well_formed(key: bytes) -> bool:
    """Whether it can have been given out by anyone."""
    match = _KEY.fullmatch(key)
    return match is not None and _checksum(key[:-6]).encode() == match[3]


def hash_of(key: bytes) -> str:
    """As it stands in the file."""
    return sha256(key).hexdigest()


def _checksum(text: bytes) -> str:
    """Six digits of base 62."""
    value, digits = crc32(text), ""
    for _ in range(6):
        value, digit = divmod(value, 62)
        digits = _DIGITS[digit] + digits
    return digits

"""Who a request was found to come from."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

import msgspec


class Principal(msgspec.Struct, frozen=True, kw_only=True):
    """A verified identity. Shared by the requests that prove the same one: nothing in it is to be changed."""

    subject: str
    scheme: str
    """The name of the scheme of `auth` that verified it."""
    claims: Mapping[str, Any] = {}
    """What is known of it, as the scheme was told."""
    scopes: frozenset[str] = frozenset()
    credential: str = ""
    """Names what it was proven with (the id of a token, of a key, a certificate's fingerprint); never a secret."""
    expires: float = math.inf
    """Unix time from which on it is not believed: the end of the credential, later by how much clocks may differ."""


def scopes_of(said: Any) -> list[str]:
    """Words in a text (RFC 8693 §4.2), or a list of them. Raises `ValueError` for what is neither."""
    if isinstance(said, str):
        return [each for each in said.split(" ") if each]
    if not isinstance(said, list) or not all(isinstance(each, str) for each in said):
        raise ValueError("neither text nor a list of texts")
    return [each for each in said if each]

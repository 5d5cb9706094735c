"""What an answer in JSON says of a credential: whose it is, or that it is nobody's.

The members are those of RFC 7662 (`active`, `sub`, `scope`, `exp`, ...), or `subject`, `scopes`, `claims` and `ttl` as
people write them who never heard of it. Whatever is not clearly one of the two is nonsense, which lets nobody in.
"""

from __future__ import annotations

import math
from typing import Any

import msgspec

from castlegate.principal import Principal, scopes_of
from castlegate.schemes.answers import Accepted, Nonsense, Rejected, Verdict

REFUSAL = Rejected("The credential is not accepted.")
LARGEST = 64 * 1024  # bytes of an answer

_LONGEST_SUBJECT = 1024  # characters
_LONGEST_LIFE = 10.0**11  # seconds since 1970 that anyone could mean


def read_answer(body: bytes, scheme: str, now: float) -> Verdict:
    """The verdict of a service in its own words; `now` in Unix time. Raises `Nonsense`."""
    told = _decode(body)
    if told is None or told is False:
        return REFUSAL
    if not isinstance(told, dict):
        raise Nonsense("the answer is no JSON object")
    active = told.get("active", True)
    if active is False:
        return REFUSAL
    if active is not True:
        raise Nonsense("'active' of the answer is neither true nor false")
    claims = told.get("claims")
    if claims is None:
        rest = ("active", "claims", "scopes", "subject", "ttl")
        claims = {name: value for name, value in told.items() if name not in rest}
    elif not isinstance(claims, dict):
        raise Nonsense("'claims' of the answer is no JSON object")
    return _accept(told, claims, scheme, now)


def read_introspection(body: bytes, scheme: str, now: float) -> Verdict:
    """The verdict of an authorization server (RFC 7662 §2.2). Raises `Nonsense`."""
    told = _decode(body)
    if not isinstance(told, dict) or not isinstance(told.get("active"), bool):
        raise Nonsense("the answer is no JSON object with 'active'")
    if not told["active"]:
        return REFUSAL
    claims = {name: value for name, value in told.items() if name != "active"}
    names = {name: told[name] for name in ("sub", "scope", "exp") if name in told}
    # A token of a client for itself need not have a subject.
    names.setdefault("sub", told.get("client_id"))
    return _accept(names, claims, scheme, now)


def _accept(told: dict[str, Any], claims: dict[str, Any], scheme: str, now: float) -> Verdict:
    ends = [_number(each["exp"], "exp") for each in (told, claims) if each.get("exp") is not None]
    expires = min(ends, default=math.inf)
    if expires <= now:
        return Rejected("The credential has expired.")
    keep = expires - now if ends else None
    if told.get("ttl") is not None:
        keep = min(_number(told["ttl"], "ttl"), math.inf if keep is None else keep)
    subject = _subject(told)
    credential = claims.get("jti")
    principal = Principal(
        subject=subject,
        scheme=scheme,
        claims={"sub": subject, **claims},
        scopes=_scopes(told),
        credential=credential if isinstance(credential, str) else "",
        expires=expires,
    )
    return Accepted(principal, keep)


def _subject(told: dict[str, Any]) -> str:
    subject = told.get("subject", told.get("sub"))
    if isinstance(subject, int) and not isinstance(subject, bool):
        subject = str(subject)
    if not isinstance(subject, str) or not subject or len(subject) > _LONGEST_SUBJECT:
        raise Nonsense("the answer does not say whose the credential is: 'subject' is missing, or no text")
    return subject


def _scopes(told: dict[str, Any]) -> frozenset[str]:
    scopes = told.get("scopes", told.get("scope"))
    if scopes is None:
        return frozenset()
    try:
        return frozenset(scopes_of(scopes))
    except ValueError as error:
        raise Nonsense(f"the scopes of the answer are {error}") from error


def _number(value: Any, name: str) -> float:
    if isinstance(value, bool) or not isinstance(value, (int, float)) or not abs(value) < _LONGEST_LIFE:
        raise Nonsense(f"'{name}' of the answer is no number that anyone could mean")
    return float(value)


def _decode(body: bytes) -> Any:
    try:
        return msgspec.json.decode(body)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
        raise Nonsense("the answer is not valid JSON") from error

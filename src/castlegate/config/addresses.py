"""`host:port` and `http://host:port`, taken apart. Looks nothing up.

Every function raises `ValueError` saying why; whatever repeats a part of the value stands behind a semicolon.
"""

from __future__ import annotations

import re
from ipaddress import IPv6Address, ip_address
from typing import NamedTuple
from urllib.parse import urlsplit

_ADDRESS = re.compile(r"(\[[^\]]*\]|[^:]*):([0-9]+)")
_HOST = re.compile(r"(?:[A-Za-z0-9_](?:[A-Za-z0-9_-]*[A-Za-z0-9_])?\.)*[A-Za-z0-9_](?:[A-Za-z0-9_-]*[A-Za-z0-9_])?\.?")
_DOTTED_NUMBERS = re.compile(r"[0-9.]+")


class Origin(NamedTuple):
    """Where an instance of a service is reached."""

    host: str
    port: int
    tls: bool

    @property
    def authority(self) -> str:
        """`host:port`."""
        return f"[{self.host}]:{self.port}" if ":" in self.host else f"{self.host}:{self.port}"

    def __str__(self) -> str:
        return f"{'https' if self.tls else 'http'}://{self.authority}"


def parse_address(text: str) -> tuple[str, int]:
    """`0.0.0.0:8080` → host and port; an IPv6 host stands in brackets and comes back without."""
    match = _ADDRESS.fullmatch(text)
    if match is None:
        raise ValueError(_what_is_missing(text))
    port = int(match[2][:6])
    if port > 65535:
        raise ValueError("expected a port of at most 65535")
    if not match[1]:
        raise ValueError(f"the host is missing; write 0.0.0.0:{port} for all interfaces")
    return check_host(match[1]), port


def is_loopback(host: str) -> bool:
    """Whether only this machine can reach it."""
    try:
        return ip_address(host).is_loopback
    except ValueError:
        return host == "localhost"


def check_host(text: str) -> str:
    """A host name or address; an IPv6 one in brackets, which are taken off."""
    if text.startswith("["):
        try:
            return str(IPv6Address(text[1:-1]))
        except ValueError as error:
            raise ValueError(f"expected an IPv6 address between the brackets; {error}") from error
    numbers = text.split(".")
    if _DOTTED_NUMBERS.fullmatch(text) and not (len(numbers) == 4 and all(n and int(n) < 256 for n in numbers)):
        raise ValueError("expected an IPv4 address of four numbers up to 255")
    if not _HOST.fullmatch(text):
        raise ValueError("expected a host name or an address")
    return text


def parse_origin(text: str) -> Origin:
    """`http://users-1:8000`, or `https://`, taken apart."""
    if "://" not in text:
        raise ValueError("expected a URL such as http://users:8000; 'http://' is missing")
    if not text.isprintable() or " " in text:
        raise ValueError("expected a URL such as http://users:8000, without spaces")
    try:
        url = urlsplit(text)
    except ValueError as error:
        raise ValueError(f"expected a URL such as http://users:8000; {error}") from error
    if url.scheme not in ("http", "https"):
        raise ValueError(f"expected a URL such as http://users:8000; not {url.scheme}://")
    if url.username is not None or url.password is not None:
        raise ValueError("expected a URL without a user; set the field 'authorization' with 'headers' instead")
    if url.query or url.fragment or "?" in text or "#" in text:
        raise ValueError("expected a URL without a query")
    if url.path not in ("", "/"):
        raise ValueError("expected a URL without a path; say it with the route's 'add_prefix'")
    host, colon, port = url.netloc.rpartition(":")
    if not colon or port.endswith("]"):
        return Origin(check_host(url.netloc), 443 if url.scheme == "https" else 80, url.scheme == "https")
    if not port.isdecimal() or not 0 < int(port[:6]) <= 65535:
        raise ValueError("expected a port from 1 to 65535")
    return Origin(check_host(host), int(port), url.scheme == "https")


class Url(NamedTuple):
    """One that the gateway itself asks: `https://idp.example.com/keys?v=2`."""

    origin: str
    """With its scheme, as `parse_origin` takes it."""
    target: str
    """Path and query."""


def parse_url(text: str) -> Url:
    """A URL taken apart. Raises `ValueError`."""
    scheme, separator, rest = text.partition("://")
    end = min((rest.find(mark) for mark in "/?#" if mark in rest), default=len(rest))
    origin, target = f"{scheme}{separator}{rest[:end]}", rest[end:]
    parse_origin(origin)
    if "#" in target or not target.isprintable() or " " in target:
        raise ValueError("expected a URL without spaces and without a fragment")
    return Url(origin, target if target.startswith("/") else f"/{target}")


def _what_is_missing(text: str) -> str:
    if text.isdecimal():
        return f"expected host:port; write 0.0.0.0:{text} for all interfaces, or 127.0.0.1:{text}"
    if "://" in text:
        return "expected host:port without a scheme, such as 0.0.0.0:8080"
    if text.count(":") > 1 and not text.startswith("["):
        return "expected host:port; an IPv6 address stands in brackets, such as [::1]:8080"
    return "expected host:port, such as 0.0.0.0:8080"

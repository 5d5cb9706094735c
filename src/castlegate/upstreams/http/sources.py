"""What operators say about where a service's instances are found."""

from __future__ import annotations

import ipaddress
from typing import ClassVar, Literal

import msgspec

from castlegate.config.addresses import check_host, parse_address
from castlegate.config.report import Place
from castlegate.config.units import Count, Seconds


class _Names(msgspec.Struct, kw_only=True, frozen=True, forbid_unknown_fields=True):
    """How names are looked up."""

    scheme: Literal["http", "https"] = "http"
    """What the instances speak."""
    server: str | None = None
    """`address:port` of the DNS server; else those of `/etc/resolv.conf`. `/etc/hosts` is not looked at."""
    timeout: Seconds = 5.0
    """For an answer, from whichever server."""
    least: Seconds = 1.0
    """Between two questions at least, however short an answer may be kept. After failures this doubles, up to 30 s."""
    longest: Seconds = 300.0
    """Between two questions at most, however long an answer may be kept."""
    most: Count = 1000
    """At most so many instances are taken of those that are found."""

    def _check_server(self, at: Place) -> None:
        if self.server is not None:
            try:
                ipaddress.ip_address(parse_address(self.server)[0])
            except ValueError:
                place = at.field("server")
                place.mistake(f"expected address and port, such as 10.0.0.2:53, found {place.shown(self.server)}")
        if self.longest < self.least and not (at.field("least").spoilt or at.field("longest").spoilt):
            at.field("longest").mistake("it is less than 'least'")


class Dns(_Names, kw_only=True, frozen=True, forbid_unknown_fields=True):
    """Every address of a name is an instance (A, else AAAA), for as long as the answer may be kept.

    A plain `host:port` stands for `name` alone.
    """

    short: ClassVar[str] = "name"

    name: str
    """`host:port`. The host is what certificates must be for, and all of it what is asked for (`Host`), if nothing else
    is said."""

    @property
    def says(self) -> str:
        """It, in words."""
        return f"DNS name {self.name}"

    def check(self, at: Place) -> None:
        """The name."""
        self._check_server(at)
        place = at.field("name")
        try:
            host, port = parse_address(self.name)
        except ValueError:
            place.mistake(f"expected host:port such as users.internal:8000, found {place.shown(self.name)}")
            return
        if ":" in host or host.replace(".", "").isdigit():
            place.mistake(f"found {place.shown(self.name)}, an address, of which there is nothing to look up; list it")
        elif not port:
            place.mistake("expected a port from 1 to 65535")


class Srv(_Names, kw_only=True, frozen=True, forbid_unknown_fields=True):
    """Every target of a name's service records is an instance (RFC 2782), with its port, priority and weight.

    A plain name stands for `name` alone.
    """

    short: ClassVar[str] = "name"

    name: str
    """Such as `_http._tcp.users.internal`."""

    @property
    def says(self) -> str:
        """It, in words."""
        return f"DNS service {self.name}"

    def check(self, at: Place) -> None:
        """The name."""
        self._check_server(at)
        try:
            check_host(self.name)
        except ValueError as error:
            at.field("name").refuse(self.name, error)


class InstanceFile(msgspec.Struct, kw_only=True, frozen=True, forbid_unknown_fields=True):
    """A file in YAML or JSON that lists the instances as `instances` does, and may be written anew at any time.

    A plain path stands for `path` alone. Write it beside and rename it: of a file that is half written half is read.
    """

    short: ClassVar[str] = "path"

    path: str
    """Relative to the configuration's folder."""
    scheme: Literal["http", "https"] = "http"
    """That of all instances."""
    every: Seconds = 1.0
    """Between two looks at whether it has changed."""
    most: Count = 1000
    """At most so many instances are taken of those that it lists."""

    @property
    def says(self) -> str:
        """It, in words."""
        return f"file {self.path}"

    def check(self, at: Place) -> None:
        """The path."""
        if not self.path or "\0" in self.path:
            at.field("path").mistake("expected a file, such as users.yaml")


Sources = Dns | Srv | InstanceFile

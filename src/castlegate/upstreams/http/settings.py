"""What operators say about a service that speaks HTTP."""

from __future__ import annotations

import re
from typing import Annotated, ClassVar

import msgspec

from castlegate.config.addresses import check_host, parse_address, parse_origin
from castlegate.config.report import Place, listed
from castlegate.config.units import Count, Seconds, Size
from castlegate.upstreams.http.balance import Balance
from castlegate.upstreams.http.sources import Dns, InstanceFile, Sources, Srv
from castlegate.wire.service_tls import ServiceTls

_USER = re.compile(r"//[^/@]*@")  # may hold a password


class HttpPool(msgspec.Struct, kw_only=True, frozen=True, forbid_unknown_fields=True):
    """Connections to each instance."""

    connections: Count = 128
    """At most so many to one instance."""
    waiting: Count = 1024
    """Requests that may wait for a connection; one more is answered 503. As many uploads may wait for their turn."""
    uploads: Count | None = None
    """How many of `connections` may be held by requests whose body is still arriving from the client; else half of
    them, at least one. Others wait until one of these has been sent, so that slow clients leave room for everybody
    else. Bodies up to the route's `limits.buffer` are sent when they have arrived, and never count."""
    idle: Seconds = 4.0
    """An unused connection is closed after this. Shorter than what services keep them for (Node.js and uvicorn: 5 s):
    who closes first decides whether a request meets a connection that is just being closed."""
    connect_timeout: Seconds = 1.0
    """For the connection to be made, with TLS its handshake included."""
    header_size: Size = 64 * 1024
    """Bytes of an answer's head; more is a bad answer (502)."""
    headers: Count = 200
    """Fields in an answer's head; more is a bad answer (502)."""
    read_timeout: Seconds = 30.0
    """Between two reads of an answer's body; then it is cut. A service that takes nothing of a request's body is given
    up after the route's timeout."""

    @property
    def most_uploads(self) -> int:
        """What `uploads` comes to."""
        return self.uploads or max(1, self.connections // 2)

    def check(self, at: Place) -> None:
        """That uploads are a part of the connections."""
        if self.uploads is not None and self.uploads > self.connections:
            at.field("uploads").mistake(f"expected at most {self.connections}, as many as 'connections'")


class Target(msgspec.Struct, kw_only=True, frozen=True, forbid_unknown_fields=True):
    """One instance."""

    url: str
    """`http://host:port` or `https://host:port`."""
    weight: Annotated[int, msgspec.Meta(ge=1, le=100)] = 1
    """How much it gets in proportion to the others, 1 to 100."""
    priority: Annotated[int, msgspec.Meta(ge=0, le=9)] = 0
    """Those of the lowest number are asked; the next ones while none of these may be."""


class HttpService(msgspec.Struct, kw_only=True, frozen=True, forbid_unknown_fields=True):
    """A service behind HTTP/1.1. A list of URLs stands for `instances` alone."""

    short: ClassVar[str] = "instances"

    instances: list[str | Target] = []
    """`http://host:port` or `https://host:port` of each instance; where there is more to say of one, a mapping."""
    dns: Dns | None = None
    """Instead of `instances`: the addresses of a name."""
    srv: Srv | None = None
    """Instead of `instances`: the targets of a name's service records."""
    file: InstanceFile | None = None
    """Instead of `instances`: a file that lists them."""
    balance: Balance = Balance()
    """Which of several instances is asked."""
    host: str | None = None
    """The `Host` sent to it; else the instance's own `host:port`."""
    tls: ServiceTls = ServiceTls()
    """How `https://` instances prove who they are, and we to them."""
    pool: HttpPool = HttpPool()
    """Bounds on connections and waits."""

    @property
    def targets(self) -> list[Target]:
        """The instances with what holds for each."""
        return [Target(url=each) if isinstance(each, str) else each for each in self.instances]

    @property
    def source(self) -> Sources | None:
        """Where its instances are found; None: they are listed here."""
        return self.dns or self.srv or self.file

    @property
    def found_by(self) -> str | None:
        """All that is said of the source, to tell it from others; None: they are listed here."""
        return None if self.source is None else repr(self.source)

    @property
    def encrypted(self) -> bool:
        """Whether any instance speaks TLS."""
        if self.source is not None:
            return self.source.scheme == "https"
        return any(parse_origin(each.url).tls for each in self.targets)

    @property
    def certified(self) -> ServiceTls:
        """`tls`, with the name that certificates must be for where that is not the instance's host."""
        if self.dns is None or self.tls.server_name is not None:
            return self.tls
        return msgspec.structs.replace(self.tls, server_name=parse_address(self.dns.name)[0])

    @property
    def spoken_host(self) -> bytes | None:
        """What instances are asked for; None: each for its own."""
        said = self.dns.name if self.host is None and self.dns is not None else self.host
        return None if said is None else said.encode()

    def check(self, at: Place) -> None:
        """The instances and the host."""
        places = at.field("instances")
        ways = [name for name in ("dns", "srv", "file") if getattr(self, name) is not None or at.field(name).spoilt]
        ways += ["instances"] if self.instances or places.spoilt else []
        if not ways:
            places.mistake("expected at least one URL such as http://users:8000")
        elif len(ways) > 1:
            at.mistake(f"{listed([repr(name) for name in ways])} are said; instances are found in one way")
        seen: dict[tuple[str, int], int] = {}
        encrypted = False
        for index, (target, said) in enumerate(zip(self.targets, self.instances, strict=True)):
            place = places.field(index) if isinstance(said, str) else places.field(index).field("url")
            try:
                origin = parse_origin(target.url)
            except ValueError as error:
                place.refuse(_USER.sub("//...@", target.url), error)
                continue
            encrypted = encrypted or origin.tls
            if seen.setdefault(origin[:2], index) != index:
                place.mistake(f"{place.shown(target.url)} is listed twice")
        encrypted = encrypted or (self.source is not None and self.source.scheme == "https")
        if self.tls != ServiceTls() and not encrypted and not places.spoilt:
            at.field("tls").mistake("none of the instances is https://, so there is nothing to say about TLS")
        if self.host is not None:
            _check_authority(self.host, at.field("host"))


def _check_authority(host: str, at: Place) -> None:
    """A host with or without a port."""
    try:
        _ = parse_address(host) if ":" in host.rpartition("]")[2] else check_host(host)
    except ValueError as error:
        at.refuse(host, error)

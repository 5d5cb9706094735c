"""What operators say about active health checks."""

from __future__ import annotations

import re
from typing import Annotated, Any, ClassVar, Literal

import msgspec

from castlegate.config.report import Place
from castlegate.config.units import Count, Seconds, write_seconds
from castlegate.sketch import Description, Sketch

_TCP = "tcp"
_PATH = re.compile(r"/[!-~]*")


class Health(msgspec.Struct, kw_only=True, frozen=True, forbid_unknown_fields=True):
    """Asks each instance again and again whether it is well; one that is not gets no calls. Once for all workers.

    A plain path stands for `path` alone, `tcp` for a check that only connects. An instance that has come is called
    when it has passed its first check, and the first result decides by itself.
    """

    short: ClassVar[str] = "path"

    path: str = _TCP
    """What is asked for, with a query if there is one; `tcp`: nothing, that it accepts connections is enough."""
    method: Literal["GET", "HEAD"] = "GET"
    """How."""
    interval: Seconds = 5.0
    """From the end of one check of an instance to the next."""
    jitter: Annotated[float, msgspec.Meta(ge=0, le=1)] = 0.1
    """By this share each interval is longer or shorter, at random, so that checks spread out."""
    timeout: Seconds = 2.0
    """For connection and answer together."""
    unhealthy: Count = 3
    """So many failures in a row take it out."""
    healthy: Count = 2
    """So many passes in a row take it in again."""
    status: list[Annotated[int, msgspec.Meta(ge=200, le=599)]] = []
    """What the answer's status must be; else any from 200 to 299."""
    body: str | None = None
    """A text that must be in the first 64 KiB of the answer's body."""
    port: Annotated[int, msgspec.Meta(ge=1, le=65535)] | None = None
    """Where it is asked, if not on the port that calls go to."""

    def describe(self, sketch: Sketch) -> Description:
        """What is asked of instances beside the calls."""
        del sketch
        says: dict[str, Any] = {"asks": "for a connection" if self.connects_only else f"{self.method} {self.path}"}
        says["every"] = write_seconds(self.interval)
        says["out"] = f"after {self.unhealthy} failures in a row; in again after {self.healthy} passes"
        return Description(role="upstream", name="health", says=says)

    @property
    def connects_only(self) -> bool:
        """Whether nothing is asked."""
        return self.path == _TCP

    def check(self, at: Place) -> None:
        """What goes together."""
        if self.connects_only:
            for name, said in (("status", self.status), ("body", self.body), ("method", self.method != "GET")):
                if said and not at.field(name).spoilt:
                    at.field(name).mistake("a check that only connects has no answer; say a 'path' that it asks for")
        elif not _PATH.fullmatch(self.path):
            place = at.field("path")
            place.mistake(f"expected a path such as /healthz, or 'tcp', found {place.shown(self.path)}")
        if self.method == "HEAD" and self.body is not None:
            at.field("body").mistake("answers to HEAD have no body; say 'method: GET'")

"""Where limits are counted, as the configuration says it."""

from __future__ import annotations

import importlib.util
import re
from typing import Literal
from urllib.parse import urlsplit

import msgspec

from castlegate.config.report import Place
from castlegate.config.units import Count, Seconds

_PREFIX = re.compile(r"[A-Za-z0-9_.:-]{1,64}")
_MOST = 50_000_000


class LimitStore(msgspec.Struct, kw_only=True, frozen=True, forbid_unknown_fields=True):
    """Where the limits, quotas and concurrency of routes are counted. All workers of an instance count together."""

    entries: Count = 1_000_000
    """Addresses, principals, ... that are counted at once, of all rates together and of all quotas together. Of
    more, those are dropped that have been idle for the longest, which costs nothing where their time has passed
    (`castlegate_limit_keys_dropped_total` counts where it has not). A million take up to 85 MB, as they come, once for
    all workers. Only a restart changes it."""
    store: Literal["memory", "redis", "kafka"] = "memory"
    """`memory`: each instance counts for itself. `redis`: all that use the same Redis count rates and quotas together,
    exactly; every request that is limited then asks it. `kafka`: all that use the same `topic` of the cluster count
    rates and quotas together, approximately: each counts for itself and tells the others, so that no request waits.
    Concurrency is counted by each instance in any case."""
    topic: str = "castlegate.limits"
    """Of Kafka, with one partition: where instances tell each other what they admitted. Made where it is missing. It
    belongs to them alone: whoever writes to it can have clients refused."""
    every: Seconds = 0.1
    """Over Kafka: how often at most each worker tells what it admitted. What other instances admit in this time, and
    until it is heard, can be too much."""
    untold: Count = 100_000
    """Over Kafka: keys that a worker holds until it can tell of them, of rates and of quotas. What is beyond, while
    Kafka is lost, is never told (`castlegate_limit_told_total` with `result="dropped"`)."""
    url: str | None = None
    """Of Redis 5 or later: `redis://host:port[/number]`, or `rediss://` for TLS. Clusters are not supported."""
    user: str | None = None
    """Who to be towards Redis; its default user if nothing is said."""
    password: str | None = None
    """From the environment or a file: `${REDIS_PASSWORD}`, `${file:/run/secrets/redis}`."""
    lost: Literal["local", "refuse"] = "local"
    """What becomes of limited requests while Redis or Kafka does not answer: `local` has each instance count for itself
    in its memory until it is back, after Redis from nothing; `refuse` answers 503. Either is done at once, without
    waiting."""
    timeout: Seconds | None = None
    """How long a request waits for Redis (250 ms if nothing is said), if its own timeout is not shorter; then it is
    treated as `lost` says. When Redis leaves a command unanswered for so long, it counts as lost until it answers
    again; so does Kafka when what was told has not come back (1 s)."""
    connections: Count = 2
    """Connections to Redis that each worker has. Each carries what all requests of a moment ask as one command."""
    prefix: str = "castlegate"
    """What keys in Redis begin with: gateways of the same prefix count together where their limits are the same."""
    ca: str | None = None
    """File in PEM: the authorities that vouch for Redis over TLS; else those that the system trusts."""

    @property
    def patience(self) -> float:
        """Seconds of `timeout`."""
        return self.timeout if self.timeout is not None else 1.0 if self.store == "kafka" else 0.25

    def check(self, at: Place) -> None:
        """What goes with which store."""
        if self.entries > _MOST:
            at.field("entries").mistake(f"must be at most {_MOST}, found {self.entries}")
        if not _PREFIX.fullmatch(self.prefix):
            at.field("prefix").mistake("a prefix has up to 64 letters, digits and '_', '.', ':', '-'")
        if self.store != "redis":
            for field in ("url", "user", "password", "ca"):
                if getattr(self, field) is not None:
                    at.field(field).mistake("this goes with 'store: redis'")
            return
        if self.user is not None and self.password is None:
            at.field("user").mistake("a 'user' goes with a 'password'")
        if importlib.util.find_spec("redis") is None:
            at.field("store").mistake("the package for Redis is not installed: pip install 'castlegate[redis]'")
        if self.url is None:
            if not at.field("url").spoilt:
                at.mistake("'store: redis' needs a 'url', such as redis://redis:6379")
        else:
            self._check_url(self.url, at.field("url"))
        if self.ca is not None and not (at.report.folder / self.ca).is_file():
            at.field("ca").mistake(f"there is no file {at.field('ca').shown(self.ca)}")

    def _check_url(self, url: str, at: Place) -> None:
        try:
            found = urlsplit(url)
            sound = found.scheme in ("redis", "rediss") and bool(found.hostname) and (found.port or 1) > 0
            sound = sound and re.fullmatch(r"(/[0-9]*)?", found.path) is not None and not found.query
        except ValueError:
            sound = False
        if not sound:
            at.mistake("expected redis://host:port[/number], or rediss:// for TLS")
        elif "@" in found.netloc:
            at.mistake("who to be stands in 'user' and 'password', not in the URL")
        elif self.ca is not None and found.scheme != "rediss":
            at.mistake("'ca' goes with rediss://, which is TLS")

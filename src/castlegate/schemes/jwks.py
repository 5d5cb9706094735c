"""The keys of a provider: fetched beside requests, renewed before they are too old, kept through its outages.

    none       from the start, and after an outage longer than `keep`: nothing can be verified, each second is a try
    held       renewed in time; a token's unknown `kid` has them fetched at once, at most once in `unknown` seconds
    failing    the last try failed: those there are hold on, with tries less and less often
One task moves between them and is the only one that fetches; requests at most wait for what it does. Whatever a token
says has no part in where keys come from.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import random
from typing import Protocol

import msgspec

from castlegate.config.addresses import Url, parse_url
from castlegate.config.report import DocumentPath
from castlegate.errors import CallFailed
from castlegate.fetching import Fetched, Fetcher
from castlegate.headers import Headers
from castlegate.means import Means
from castlegate.schemes.key_fetching import KeyFetching, lifetime, may_be_asked
from castlegate.schemes.strict import decode_object
from castlegate.schemes.token_keys import Key, KeySet, Skipped, from_jwks
from castlegate.waiting import Waiter

logger = logging.getLogger("castlegate.keys")

_WELL_KNOWN = "/.well-known/openid-configuration"
_HEADERS = Headers.of(
    [
        (b"accept", b"application/json, application/jwk-set+json"),
        (b"accept-encoding", b"identity"),
        (b"connection", b"close"),  # it is minutes to the next fetch: what lies idle for so long may be dead
    ]
)
_DEEPEST = 8

_AHEAD = (0.75, 0.85)  # of their age at which keys are fetched anew: not by all workers and instances at once
_RETRY = 1.0  # seconds
_LATEST_RETRY = 30.0
_FETCHERS = 2  # an issuer and its keys may have one origin each
_LONGEST_TOLD = 400  # characters of what is skipped in a line of the log


class Provider(msgspec.Struct, frozen=True):
    """Where keys are fetched from."""

    issuer: str | None
    jwks: str | None
    """None: what the issuer's discovery document says."""
    fetch: KeyFetching

    @property
    def name(self) -> str:
        """In the log and in metrics."""
        return self.issuer or self.jwks or ""


class KeySource(Protocol):
    """Where the keys of an issuer are asked for."""

    @property
    def keys(self) -> KeySet:
        """What there is now."""

    @property
    def failing(self) -> bool:
        """Whether there may be newer ones that cannot be got."""

    async def renewed(self, until: float) -> bool:
        """Wait, until that loop time at most, for newer keys than `keys` if they are on their way or may be asked for.
        Whether they have been got, or tried to."""


class FixedKeys:
    """Keys of the configuration."""

    failing = False

    def __init__(self, keys: list[Key]) -> None:
        self.keys = KeySet(keys)

    async def renewed(self, until: float) -> bool:
        """See `KeySource`."""
        del until
        return False


class UnusableAnswer(Exception):
    """An answer of the provider that cannot be used; `result` is a word for metrics."""

    def __init__(self, result: str, text: str) -> None:
        super().__init__(text)
        self.result = result


class _Waiting(Waiter[bool]):
    """A request that waits for keys."""

    __slots__ = ()

    def expire(self) -> None:
        """It waits no longer."""
        self.settle(False)


class RemoteKeys:
    """See the module. A resource."""

    def __init__(self, provider: Provider, path: DocumentPath, means: Means) -> None:
        """`path`: where it is said how keys are fetched."""
        self._provider = provider
        self._settings = provider.fetch
        self._make_fetcher = means.fetcher
        self._timer = means.timer
        self._now = means.timer.now
        name = provider.name
        registry = means.registry
        self._results = registry.counter(
            "castlegate_jwks_fetches_total", "Fetches of keys: ok, or why not.", "issuer", "result"
        )
        self._skipped = registry.counter(
            "castlegate_jwks_skipped_keys_total",
            "Keys that cannot be used, by reason.",
            "issuer",
            "reason",
        )
        self._ages = registry.gauge(
            "castlegate_jwks_age_seconds",
            "Since keys were last fetched (mean of workers).",
            "issuer",
        )
        self._workers = means.workers
        # Changed by the task alone.
        self.keys = KeySet()
        self.failing = False
        self._fetched_at = self._now()  # or started
        self._address: Url | None = None  # of the keys, as discovered
        self._address_until = 0.0
        self._tries = 0  # in a row that failed
        self._tried = False  # at all
        self._lifetime = 0.0
        self._told_failure = self._told_skipped = ""  # what the log said last
        self._tls, self._path = provider.fetch.tls, (*path, "tls")
        first = parse_url(provider.jwks or provider.issuer or "").origin
        self._fetchers: dict[str, Fetcher] = {first: means.fetcher("jwks", first, self._tls, self._path)}
        self._task: asyncio.Task[None] | None = None
        # Changed by requests too.
        self._under_way = True
        self._ask_again_at = 0.0
        self._wanted = asyncio.Event()
        self._waiting: set[_Waiting] = set()
        self._labels = (name,)

    def _age(self) -> float:
        return (self._now() - self._fetched_at) / self._workers  # what the workers tell is added up

    async def start(self) -> None:
        """Begin to fetch, in the background."""
        self._ages.watch(self._age, *self._labels)
        for fetcher in self._fetchers.values():
            await fetcher.start()
        self._task = asyncio.create_task(self._run())

    async def stop(self) -> None:
        """Fetch no more."""
        if self._task is not None:
            self._task.cancel()
            with contextlib.suppress(asyncio.CancelledError):
                await self._task
        self._tell_waiting()
        for fetcher in self._fetchers.values():
            await fetcher.stop()
        self._fetchers.clear()
        if self._ages.watched.get(self._labels) == self._age:  # unless there is another one of it by now
            self._ages.forget(*self._labels)

    async def renewed(self, until: float) -> bool:
        """See `KeySource`."""
        now = self._now()
        if not self.keys and self._tried:
            return False  # they are being tried for all the time: what does not answer must not hold up requests
        if not self._under_way:
            if now < self._ask_again_at:
                return False
            self._ask_again_at = now + self._settings.unknown
            self._under_way = True
            self._wanted.set()
        waiting = _Waiting()
        until = min(until, now + self._settings.timeout + 1.0)
        self._waiting.add(waiting)
        self._timer.add(waiting, until)
        try:
            return await waiting
        finally:
            self._waiting.discard(waiting)
            self._timer.remove(waiting, until)

    async def _run(self) -> None:
        while True:
            self._under_way = True
            self._wanted.clear()
            await self._try()
            self._tried = True
            self._under_way = False
            self._tell_waiting()
            await self._pause(self._next_try())

    def _tell_waiting(self) -> None:
        for waiting in list(self._waiting):
            waiting.settle(True)

    async def _pause(self, seconds: float) -> None:
        """Until it is time, or a token names an unknown key."""
        ends = self._fetched_at + self._settings.keep
        if self.keys:
            seconds = min(seconds, ends - self._now())
        with contextlib.suppress(TimeoutError):
            await asyncio.wait_for(self._wanted.wait(), max(0.0, seconds))
        if self.keys and self._now() >= ends:
            self._drop()

    def _drop(self) -> None:
        logger.error("issuer %s: its keys are too old to be believed: tokens cannot be verified", self._provider.name)
        self._replace([])

    def _next_try(self) -> float:
        """Seconds from now."""
        if not self.keys:
            return _RETRY
        if self._tries:
            return min(_RETRY * 2.0 ** (self._tries - 1), _LATEST_RETRY) * random.uniform(0.8, 1.2)  # noqa: S311
        return self._lifetime * random.uniform(*_AHEAD)  # noqa: S311

    async def _try(self) -> None:
        result = "ok"
        try:
            async with asyncio.timeout(self._settings.timeout):
                answer = await self._ask()
            keys, skipped = self._read(answer)
        except CallFailed as error:
            result, why = error.kind.name, error.kind.title
        except TimeoutError:
            result, why = "timeout", "no answer in time"
        except UnusableAnswer as error:
            result, why = error.result, str(error)
        except Exception as error:  # noqa: BLE001 - told below; the next try must come, whatever this was
            result, why = "error", repr(error)
        self._results.child(*self._labels, result).value += 1
        self.failing = result != "ok"
        if self.failing:
            self._tries += 1
            self._address = None
            self._tell_failure(why)
            return
        if self._told_failure:
            logger.info("issuer %s: its keys have been fetched", self._provider.name)
            self._told_failure = ""
        self._tries = 0
        self._fetched_at = self._now()
        self._lifetime = lifetime(answer.headers, self._settings)
        self._replace(keys)
        self._tell_skipped(skipped)

    def _replace(self, keys: list[Key]) -> None:
        gone = set(self.keys.keys).difference(keys)
        for key in gone:
            key.live = False
        self.keys = KeySet(keys)

    def _read(self, answer: Fetched) -> tuple[list[Key], list[Skipped]]:
        try:
            return from_jwks(decode_object(answer.body, _DEEPEST), self.keys.keys)
        except ValueError as error:
            raise UnusableAnswer("malformed", "its answer is no set of keys") from error

    async def _ask(self) -> Fetched:
        """For the set of keys."""
        if self._provider.jwks is not None:
            return await self._get(parse_url(self._provider.jwks))
        if self._address is None or self._now() > self._address_until:
            self._address = await self._discover()
            self._address_until = self._now() + self._settings.at_most
        return await self._get(self._address)

    async def _discover(self) -> Url:
        """Where the keys are (OpenID Connect Discovery §4)."""
        issuer = self._provider.issuer or ""
        try:
            answer = await self._get(parse_url(issuer.rstrip("/") + _WELL_KNOWN))
            document = decode_object(answer.body, _DEEPEST)
            found = document.get("jwks_uri")
            if document.get("issuer") != issuer:
                raise UnusableAnswer("discovery", "its discovery document is of another issuer")
            address = parse_url(found) if isinstance(found, str) else None
        except ValueError as error:
            raise UnusableAnswer("discovery", "its discovery document is malformed") from error
        if address is None or not may_be_asked(address, self._settings, vouched_by=issuer):
            raise UnusableAnswer("discovery", "its discovery document names no https:// address of keys")
        return address

    async def _get(self, address: Url) -> Fetched:
        fetcher = self._fetchers.get(address.origin)
        if fetcher is None:
            if len(self._fetchers) >= _FETCHERS:
                await self._fetchers.pop(next(iter(self._fetchers))).stop()
            fetcher = self._make_fetcher("jwks", address.origin, self._tls, self._path)
            await fetcher.start()
            self._fetchers[address.origin] = fetcher
        within, limit = self._settings.timeout, self._settings.size
        answer = await fetcher.fetch(b"GET", address.target.encode(), _HEADERS, b"", within=within, limit=limit)
        if 300 <= answer.status < 400:
            raise UnusableAnswer(
                "redirect", "it redirects, which is not followed: name the address that it redirects to"
            )
        if answer.status != 200:
            raise UnusableAnswer("status", f"it answers {answer.status}")
        return answer

    def _tell_failure(self, why: str) -> None:
        """Once, not at every try."""
        text = why if self.keys else f"{why}; its tokens cannot be verified"
        if text != self._told_failure:
            self._told_failure = text
            logger.warning("issuer %s: its keys cannot be fetched: %s", self._provider.name, text)

    def _tell_skipped(self, skipped: list[Skipped]) -> None:
        """Once for a set. Keys for encryption stand rightly among the others."""
        bad = [each for each in skipped if each.reason != "use"]
        text = "; ".join(f"{each.name}: {each.text}" for each in bad)
        if text != self._told_skipped:
            self._told_skipped = text
            for each in bad:
                self._skipped.child(*self._labels, each.reason).value += 1
            if bad:
                name, cut = self._provider.name, text[:_LONGEST_TOLD]
                logger.warning("issuer %s: keys that cannot be used are skipped: %s", name, cut)

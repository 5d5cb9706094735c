"""API keys: whose a key is, is found by its hash, in one step however many there are.

The file is looked at every few seconds; what cannot be used changes nothing, and the log says why. Until it could be
read once, nobody is let in, and nobody is told that their key is wrong.
"""

from __future__ import annotations

import asyncio
import hmac
import logging
import time
from hashlib import sha256
from pathlib import Path
from typing import ClassVar

from castlegate.config.files import Signature, signature
from castlegate.config.report import Place, Report
from castlegate.config.units import Seconds
from castlegate.errors import Kinds
from castlegate.means import Means
from castlegate.message import Request
from castlegate.principal import Principal
from castlegate.schemes.api_key import is_well_formed
from castlegate.schemes.carrier import Carrier, challenge
from castlegate.schemes.key_file import EMPTY, KeyFile, Line, load_text, read_lines, read_whole, speaks_of_limits
from castlegate.schemes.scheme import Unauthenticated
from castlegate.telemetry.stumbles import Stumbles

logger = logging.getLogger("castlegate.auth")

_FIELD = "X-API-Key"
_MOST_TOLD = 10  # mistakes of a file that the log is told of at once


class Keys(Carrier, kw_only=True, frozen=True, forbid_unknown_fields=True):
    """API keys, of which a file holds the hashes: see `castlegate key`. A plain path stands for `file` alone. Without
    another place being said, they are taken from the field `X-API-Key`.
    """

    short: ClassVar[str] = "file"

    file: str
    """The file, relative to the configuration's folder."""
    watch: Seconds = 2.0
    """Between two looks at the file: so soon a new key works and a revoked one does not."""

    @property
    def carrier(self) -> Carrier:
        """Where the key stands."""
        return self if self.said else Carrier(header=_FIELD, forward=self.forward)

    def check(self, at: Place) -> None:
        """The file and what is in it."""
        Carrier.check(self, at)
        path = at.report.folder / self.file
        place = at.field("file")
        try:
            content = load_text(path)
        except (OSError, ValueError) as error:
            hint = "; 'castlegate key new' makes one" if isinstance(error, FileNotFoundError) else ""
            place.mistake(f"found {place.shown(self.file)}, which cannot be used: {_why(error)}{hint}")
            return
        found = Report(at.report.folder)
        read_whole(content, str(path), found)
        for mistake in found.mistakes:
            at.report.add(mistake.position, (*place.path, *mistake.path), mistake.text)

    def has_limits(self, folder: Path) -> bool:
        """Whether a key in the file seems to have one of its own."""
        try:
            return speaks_of_limits(load_text(folder / self.file))
        except (OSError, ValueError):
            return False


class KeyTable:
    """The keys of a file, kept as the file is."""

    def __init__(self, scheme: str, settings: Keys, means: Means) -> None:
        # For good.
        self._scheme = scheme
        self._path = means.folder / settings.file
        self._every = settings.watch
        reloads = means.registry.counter(
            "castlegate_auth_key_reloads_total", "Files of API keys read: ok, error.", "scheme", "result"
        )
        self._taken, self._refused = reloads.child(scheme, "ok"), reloads.child(scheme, "error")
        self._watching: asyncio.Task[None] | None = None
        # Changed by `_use` alone, but what the file looked like.
        self._file: KeyFile = EMPTY
        self._by_hash: dict[bytes, Line] = {}
        self._seen: Signature = ()
        self.readable = False

    async def start(self) -> None:
        """Read the file, and look at it from now on."""
        await self._look()
        self._watching = asyncio.get_running_loop().create_task(self._watch())

    async def stop(self) -> None:
        """No more."""
        if self._watching is not None:
            self._watching.cancel()

    def find(self, credential: bytes) -> Line | None:
        """What is known of a key."""
        digest = sha256(credential).digest()
        line = self._by_hash.get(digest)
        return line if line is not None and hmac.compare_digest(line.digest, digest) else None

    def principal(self, line: Line) -> Principal | None:
        """Its owner; None if it is not to be used any more."""
        if line.key.revoked is not None or time.time() >= line.expires:
            return None
        if line.principal is None:
            key = line.key
            limit = {} if key.limit is None else {"limit": key.limit}
            line.principal = Principal(
                subject=key.owner,
                scheme=self._scheme,
                claims={"sub": key.owner, **key.claims, **limit},
                scopes=frozenset(key.scopes),
                credential=line.id,
                expires=line.expires,
            )
        return line.principal

    async def _watch(self) -> None:
        stumbles = Stumbles(logger, f"watching the keys of auth '{self._scheme}'")
        while True:
            await asyncio.sleep(self._every)
            try:
                await self._look()
            except Exception as error:  # noqa: BLE001 - logged
                self._seen = ()  # a key that was revoked must not work on because of it
                stumbles.tell(error)

    async def _look(self) -> None:
        """Take what the file holds if it has changed."""
        loop = asyncio.get_running_loop()
        now = await loop.run_in_executor(None, signature, [self._path])
        if now == self._seen:
            return
        self._seen = now  # taken before it is read: what is written meanwhile is another change
        content = await loop.run_in_executor(None, self._read)
        if content is not None:
            await self._take(content)

    async def _take(self, content: bytes) -> None:
        """Read it in turns with whoever is served."""
        report = Report(self._path.parent)
        turns = read_lines(content, str(self._path), self._file, report)
        while True:
            try:
                next(turns)
            except StopIteration as end:
                self._use(end.value, report)
                return
            await asyncio.sleep(0)

    def _read(self) -> bytes | None:
        try:
            return load_text(self._path)
        except (OSError, ValueError) as error:
            self._refused.value += 1
            logger.error("auth '%s': the keys stay as they were: %s: %s", self._scheme, self._path, _why(error))
            return None

    def _use(self, file: KeyFile, report: Report) -> None:
        if report:
            self._refused.value += 1
            for mistake in report.mistakes[:_MOST_TOLD]:
                logger.error("auth '%s': the keys stay as they were: %s", self._scheme, mistake)
            return
        self._file = file
        self._by_hash = {line.digest: line for line in file.entries.values()}
        self._taken.value += 1
        logger.info("auth '%s': %d keys of %s are known from now on", self._scheme, len(self._by_hash), self._path)
        self.readable = True


class KeysScheme:
    """See `castlegate.schemes.scheme.Scheme`."""

    credential = "API key"

    def __init__(self, name: str, settings: Keys, means: Means) -> None:
        self.carrier = place = settings.carrier
        self.ambient = place.ambient
        self.challenge = challenge(place.authorization or "ApiKey", name)
        self.take = place.taker()
        self._table = means.resources.keep(f"API keys of {name}", settings, lambda: KeyTable(name, settings, means))

    def known(self, credential: bytes) -> Principal | None:
        """Whose it is: all keys are known."""
        line = self._table.find(credential)
        return None if line is None else self._table.principal(line)

    async def verify(self, credential: bytes, request: Request) -> Principal:
        """What is wrong with it."""
        del request
        if not self._table.readable:
            raise Unauthenticated("There are no keys yet.", kind=Kinds.UNVERIFIABLE)
        line = self._table.find(credential)
        if line is None:
            known = is_well_formed(credential)
            raise Unauthenticated("The key is not known." if known else "The key is mistyped, or not one of ours.")
        principal = self._table.principal(line)
        if principal is None:
            raise Unauthenticated("The key has expired." if line.key.revoked is None else "The key was revoked.")
        return principal


def _why(error: OSError | ValueError) -> str:
    return getattr(error, "strerror", None) or str(error)

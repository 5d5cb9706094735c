"""Counting in Redis, exactly, for all instances together.

What the requests of a moment ask is sent as one command: a script that judges each request's limits in turn, all or
none of them counted. Whoever waits does so for `timeout` at most, whatever is asked before. When Redis leaves a command
unanswered for so long it counts as lost, all who wait are told so at once, and nobody asks it until it has answered
again.
"""

from __future__ import annotations

import asyncio
import logging
from collections import deque
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

from castlegate.stores.losses import Losses
from castlegate.stores.settings import LimitStore
from castlegate.telemetry.metrics import Registry
from castlegate.waiting import Waiter
from castlegate.wire.timer import Timer

if TYPE_CHECKING:
    from redis.asyncio import Redis

logger = logging.getLogger("castlegate.limits")

_MOST_WAITING = 10_000  # requests; more are told that Redis is lost
_BATCH = 256  # requests asked about by one command: Redis serves nobody else meanwhile
_BACKOFF = (0.05, 0.1, 0.25, 0.5, 1.0)  # seconds between two tries to reach it

# For each request the number of its limits, then of each: r, interval and tolerance in microseconds, or q, amount and
# the second in which it ends. Answers, of each: what is taken up or used with this one; negative where it is refused;
# 0 where another limit of the request refuses it. The clock is that of Redis: those of instances may differ.
_SCRIPT = """
local time = redis.call('TIME')
local now = time[1] * 1000000 + time[2]
local out, k, a = {}, 0, 1
while a <= #ARGV do
  local n, said, fine = tonumber(ARGV[a]), {}, true
  for i = 1, n do
    local at = a + 3 * i - 2
    local kept, x = tonumber(redis.call('GET', KEYS[k + i]) or '0'), tonumber(ARGV[at + 1])
    if ARGV[at] == 'r' then
      local begin = math.max(kept, now)
      local wait = begin - now - tonumber(ARGV[at + 2])
      said[i] = wait > 0 and -wait or begin + x - now
    else
      said[i] = kept < x and kept + 1 or -1
    end
    fine = fine and said[i] > 0
  end
  for i = 1, n do
    local at = a + 3 * i - 2
    if not fine then
      out[k + i] = math.min(said[i], 0)
    else
      out[k + i] = said[i]
      if ARGV[at] == 'r' then
        redis.call('SET', KEYS[k + i], string.format('%.0f', now + said[i]), 'PX', math.ceil(said[i] / 1000))
      else
        redis.call('INCR', KEYS[k + i])
        if said[i] == 1 then redis.call('EXPIREAT', KEYS[k + i], ARGV[at + 2]) end
      end
    end
  end
  k, a = k + n, a + 1 + 3 * n
end
return out
"""


class Question(NamedTuple):
    """What one limit asks: its key and, see the script, what is to be counted."""

    key: str
    kind: bytes
    first: int
    second: int


class _Asked:
    """One request that waits; an entry of the timer. Once it is settled, Redis is not asked for it any more."""

    __slots__ = ("answer", "questions")

    def __init__(self, questions: list[Question]) -> None:
        self.questions = questions
        self.answer: Waiter[list[int] | None] = Waiter()

    def expire(self) -> None:
        """It waits no longer."""
        self.answer.settle(None)


class RedisStore:
    """Of one worker. `_waiting` is appended to by requests and emptied by whoever sends, or when Redis is lost."""

    def __init__(self, settings: LimitStore, folder: Path, timer: Timer, registry: Registry) -> None:
        self._settings = settings
        self._folder = folder
        self._timer = timer
        self._prefix = settings.prefix + ":"
        self._waiting: deque[_Asked] = deque()
        self._news = asyncio.Event()
        self._up = False
        self._tried = asyncio.Event()
        self._task: asyncio.Task[None] | None = None
        self._losses = Losses(settings, "Redis", registry)

    async def ask(self, questions: list[Question], deadline: float) -> list[int] | None:
        """What is answered to each. None: Redis is lost, or does not answer in time."""
        if not self._up or len(self._waiting) >= _MOST_WAITING:
            self._losses.uncounted.value += 1
            return None
        asked = _Asked(questions)
        self._waiting.append(asked)
        self._news.set()
        # From here on, not from when it is sent: other commands may be before it.
        until = min(deadline, self._timer.now() + self._settings.patience)
        self._timer.add(asked, until)
        try:
            answer = await asked.answer
        finally:
            self._timer.remove(asked, until)
            asked.answer.settle(None)  # of who leaves nothing is counted, if it was not sent yet
        if answer is None:
            self._losses.uncounted.value += 1
        return answer

    async def start(self) -> None:
        """Begin; the first try is waited for, for as long as a request would."""
        self._task = asyncio.create_task(self._keep())
        tried = asyncio.ensure_future(self._tried.wait())
        await asyncio.wait([tried], timeout=self._settings.patience)
        tried.cancel()

    async def stop(self) -> None:
        """End."""
        if self._task is not None:
            self._task.cancel()
            await asyncio.wait([self._task])

    async def _keep(self) -> None:
        """Serve while Redis answers, and try to reach it while it does not."""
        failures = 0
        while True:
            client = client_of(self._settings, self._folder, self._settings.patience)
            try:
                async with asyncio.timeout(self._settings.patience):
                    # It may answer and yet take nothing: a replica, or one that has no memory left.
                    await client.set(self._prefix + "reached", 1, px=1)
                failures = 0
                await self._serve(client)
            except Exception as error:  # noqa: BLE001 - whatever the client library raises: Redis is lost
                self._losses.lost(error)
            finally:
                self._up = False
                self._losses.up.value = 0
                self._tell_waiting()
                self._tried.set()
                await _close(client)
            await asyncio.sleep(_BACKOFF[min(failures, len(_BACKOFF) - 1)])
            failures += 1

    async def _serve(self, client: Redis) -> None:
        """Until it fails."""
        self._up = True
        self._losses.found()
        self._tried.set()
        pumps = [asyncio.create_task(self._pump(client)) for _ in range(self._settings.connections)]
        try:
            done, _ = await asyncio.wait(pumps, return_when=asyncio.FIRST_COMPLETED)
        finally:
            for pump in pumps:
                pump.cancel()
            await asyncio.gather(*pumps, return_exceptions=True)
        for pump in done:
            pump.result()

    async def _pump(self, client: Redis) -> None:
        """Ask what waits, one command after another."""
        waiting = self._waiting
        while True:
            while not waiting:
                self._news.clear()
                await self._news.wait()
            batch = self._next()
            if not batch:
                continue
            try:
                async with asyncio.timeout(self._settings.patience):
                    answers = await self._command(client, batch)
            except BaseException:
                _settle(batch, None)
                raise
            _settle(batch, answers)

    def _next(self) -> list[_Asked]:
        """Of those that wait, as many as one command asks for."""
        batch: list[_Asked] = []
        while self._waiting and len(batch) < _BATCH:
            asked = self._waiting.popleft()
            if not asked.answer.done():
                batch.append(asked)
        return batch

    async def _command(self, client: Redis, batch: list[_Asked]) -> list[int]:
        keys: list[Any] = []
        arguments: list[Any] = []
        for asked in batch:
            arguments.append(len(asked.questions))
            for question in asked.questions:
                keys.append(self._prefix + question.key)
                arguments += question[1:]
        # The script itself each time: Redis has it compiled, and none is missing after it has started anew.
        answers: list[int] = await client.eval(_SCRIPT, len(keys), *keys, *arguments)
        if len(answers) != len(keys) or not all(type(answer) is int for answer in answers):
            raise ConnectionError("Redis did not answer what it was asked")
        return answers

    def _tell_waiting(self) -> None:
        while self._waiting:
            self._waiting.popleft().answer.settle(None)


def client_of(settings: LimitStore, folder: Path, patience: float) -> Redis:
    """A client as the settings say; `patience`: seconds to connect."""
    from redis.asyncio import Redis  # an extra: not everybody has it
    from redis.asyncio.retry import Retry
    from redis.backoff import NoBackoff

    assert settings.url is not None, "the document was checked"
    more: dict[str, Any] = {}
    if settings.ca is not None:
        more["ssl_ca_certs"] = str(folder / settings.ca)
    return Redis.from_url(
        settings.url,
        username=settings.user,
        password=settings.password,
        max_connections=settings.connections + 1,
        socket_connect_timeout=patience,
        retry=Retry(NoBackoff(), 0),
        **more,
    )


def _settle(batch: list[_Asked], answers: list[int] | None) -> None:
    at = 0
    for asked in batch:
        count = len(asked.questions)
        asked.answer.settle(None if answers is None else answers[at : at + count])
        at += count


async def _close(client: Redis) -> None:
    try:
        async with asyncio.timeout(1.0):
            await client.aclose()
    except Exception as error:  # noqa: BLE001 - it is given up in any case
        logger.debug("a connection to Redis could not be closed: %s", error)

"""One call of a part under way: made, answered, its answer collected within its bounds, told to whoever asks."""

from __future__ import annotations

from collections.abc import Awaitable, Mapping
from types import CoroutineType
from typing import TYPE_CHECKING, Any

from castlegate.body import Body
from castlegate.composition.contents import bad_answer, too_deep
from castlegate.composition.parts import PartCall
from castlegate.errors import CallFailed, GatewayError, Kinds, Outcome
from castlegate.message import Call, Reply
from castlegate.rules.deadlines import GRAIN
from castlegate.waiting import DirectTask

if TYPE_CHECKING:
    from castlegate.composition.running import Run

_WEIGHT = {None: 0, Outcome.NOT_SENT: 0, Outcome.ANSWERED: 1, Outcome.UNKNOWN: 2}


class Asking:
    """One call. What it may never need is the class's: making one is part of every request."""

    run: Run
    limit: int  # bytes of the answer
    sent = 0  # weight of what became of it
    _call: Call | None = None
    _reply: Reply | None = None  # whose body is being collected
    _task: DirectTask[Any] | None = None
    _timed = 0.0  # loop time under which it stands with the timer, 0 if it does not
    _late = False

    # Of those who ask.

    def answered(self, reply: Reply, body: bytes) -> None:
        """There is a success. Raises `GatewayError` where it will not do."""
        raise NotImplementedError

    def declined(self, reply: Reply, body: bytes) -> None:
        """The service's status is none of success."""
        del body
        self.failed(declined(reply))

    def failed(self, error: GatewayError) -> None:
        """There is no answer, or none that will do."""
        raise NotImplementedError

    def note(self, error: GatewayError) -> None:
        """What became of a call that failed."""
        self.sent = max(self.sent, _WEIGHT[error.outcome])

    # The call.

    def ask(self, asked: PartCall, parts: Mapping[str, Any], until: float, now: float) -> None:
        """Make the call, which has until that loop time; `now` is one too."""
        run = self.run
        left = until - now
        if left <= 0:
            self.failed(CallFailed(Kinds.TIMEOUT, Outcome.NOT_SENT, "There was no time left to ask the service."))
            return
        try:
            self._call = call = asked.plan.make(run.request, parts, run.common(until, left), left)
            coroutine: Any = asked.caller(call)
        except GatewayError as error:
            self.failed(error)
            return
        except RecursionError:  # of what another part answered
            self.failed(too_deep())
            return
        if type(coroutine) is not CoroutineType:
            coroutine = _awaited(coroutine)
        if until < run.request.deadline:  # else the run's own end comes first
            self._timed = until + GRAIN  # the call's own end comes first: only that is judged by guards
            run.timer.add(self, self._timed)
        self._task = task = DirectTask(coroutine, self._replied)
        task.start()

    def give_up(self) -> None:
        """Nobody wants the answer."""
        task, self._task = self._task, None
        if task is not None:
            if self._call is not None and self._call.sent:
                self.sent = 2
            task.cancel()

    def expire(self) -> None:
        """Called by the timer. What it had already taken out, together with what ended this very call, is for a call
        that is over: another one may have begun.
        """
        if self._timed and self._timed <= self.run.timer.now():
            self.run_out()

    def run_out(self) -> None:
        """The answer is late, or the rest of it."""
        self._timed = 0.0
        self._late = True
        if self._task is not None:
            self._task.cancel()

    def _replied(self, reply: Reply | None, error: BaseException | None) -> None:
        self._task = None
        run = self.run
        if reply is None or run.over:
            self._untime()
            self._unanswered(reply, error)
            return
        self.sent = self.sent or 1
        body = reply.body
        if type(body) is bytes:
            self._untime()
            self._whole(reply, body)
            return
        assert isinstance(body, Body)
        self._reply = reply
        self._task = task = DirectTask(self._collect(body), self._collected)
        task.start()

    def _unanswered(self, reply: Reply | None, error: BaseException | None) -> None:
        """There is nothing, or it is nobody's."""
        if self.run.over:
            if reply is not None:
                reply.close()
        elif self._late:
            self._late = False
            outcome = Outcome.UNKNOWN if self._call is not None and self._call.sent else Outcome.NOT_SENT
            self.fall(CallFailed(Kinds.TIMEOUT, outcome, "The service did not answer in time."))
        elif isinstance(error, GatewayError):
            self.fall(error)
        else:
            assert error is not None
            self.run.fail(None, error)

    def _untime(self) -> None:
        if self._timed:
            self.run.timer.remove(self, self._timed)
            self._timed = 0.0

    async def _collect(self, body: Body) -> bytes:
        run, limit = self.run, self.limit
        whole = bytearray()
        try:
            while chunk := await body.read():
                if len(whole) + len(chunk) > limit:
                    raise bad_answer(f"The service's answer is larger than {limit} bytes.")
                run.take(len(chunk))
                whole += chunk
        finally:
            body.close()
        return bytes(whole)

    def _collected(self, body: bytes | None, error: BaseException | None) -> None:
        self._task = None
        self._untime()
        if body is None or self.run.over:
            self._unanswered(None, error)
        else:
            assert self._reply is not None
            self._whole(self._reply, body)

    def _whole(self, reply: Reply, body: bytes) -> None:
        """All of an answer is here."""
        try:
            if len(body) > self.limit:
                raise bad_answer(f"The service's answer is larger than {self.limit} bytes.")
            if 200 <= reply.status < 300:
                self.answered(reply, body)
            else:
                self.declined(reply, body)
        except GatewayError as failed:
            self.fall(failed)
        except RecursionError:
            self.fall(too_deep())
        except Exception as unforeseen:  # noqa: BLE001 - nobody above could answer for it
            self.run.fail(None, unforeseen)

    def fall(self, error: GatewayError) -> None:
        """As `failed`, for those who cannot answer for what it raises."""
        try:
            self.failed(error)
        except Exception as unforeseen:  # noqa: BLE001
            self.run.fail(None, unforeseen)


async def _awaited(awaitable: Awaitable[Reply]) -> Reply:
    return await awaitable


def declined(reply: Reply) -> CallFailed:
    """The failure that a service's own status is."""
    status = reply.status
    later = [(b"retry-after", value) for value in reply.headers.get_all(b"retry-after")[:1]]
    return CallFailed(
        Kinds.SERVICE_ERROR,
        Outcome.ANSWERED,
        f"The service answered {status}.",
        status=status,
        headers=tuple(later) if status in (429, 503) else (),
    )

"""A part that is called for each element of a list: equal elements once, a bounded number at a time, results in order.

Elements that fail are marked in their places, `{"_error": {...}}`; the part fails only if all of them do, or if there
are more than it may have.
"""

from __future__ import annotations

from collections import deque
from typing import TYPE_CHECKING, Any

import msgspec

from castlegate.composition.asking import Asking
from castlegate.composition.contents import NULL, bad_answer, parse
from castlegate.composition.parts import Batching, EachPlan, PartCall
from castlegate.composition.reshaping import is_list, is_object, items_of, members_of
from castlegate.config.references import MISSING, as_text
from castlegate.errors import GatewayError, PartUnfit
from castlegate.message import Reply

if TYPE_CHECKING:
    from castlegate.composition.running import PartRun

_encode = msgspec.json.Encoder().encode


class Elements:
    """The calls of one part for its elements."""

    __slots__ = (
        "_active", "_asked", "_error", "_failed", "_in_place", "_plan", "_pumping", "_room", "_state", "_until",
        "_values", "_waiting", "results",
    )  # fmt: skip

    def __init__(self, state: PartRun, plan: EachPlan, asked: PartCall, until: float) -> None:
        self._state = state
        self._plan = plan
        self._asked = asked
        self._until = until  # loop time
        self._in_place: list[tuple[bytes, Any]] = []  # of each element, what it is known by and itself
        self._values: dict[bytes, Any] = {}  # the different ones
        self._waiting: deque[list[bytes]] = deque()  # calls to come, each of these elements
        self._active: set[Chunk] = set()
        self._pumping = False
        self._room = state.part.limit  # bytes of answers that there may still be
        self._error: GatewayError | None = None  # the first
        self._failed: set[bytes] = set()
        self.results: dict[bytes, bytes] = {}

    def begin(self) -> None:
        """Start as many calls as there may be. Raises `GatewayError`."""
        run, plan = self._state.run, self._plan
        found = plan.of.value(run.request, run.values)
        if found is MISSING:
            found = []
        if not isinstance(found, list):
            raise plan.of.refusal(f"{plan.of.name} must be a list.")
        self._in_place = [(_encode(element), element) for element in found]
        self._values = dict(self._in_place)
        if len(self._values) > plan.most:
            raise plan.of.refusal(f"{plan.of.name} has more than {plan.most} different elements.")
        keys = list(self._values)
        self._waiting.extend(keys[start : start + plan.size] for start in range(0, len(keys), plan.size))
        self._pump()

    def run_out(self) -> None:
        """What is under way is late."""
        for chunk in list(self._active):
            chunk.run_out()

    def give_up(self) -> None:
        """Nobody wants the answers."""
        for chunk in list(self._active):
            chunk.give_up()
            self._state.sent = max(self._state.sent, chunk.sent)
        self._active = set()
        self._waiting.clear()

    def succeeded(self, chunk: Chunk, body: bytes) -> None:
        """A call has its answer. Raises `GatewayError` where it cannot be told apart."""
        self._room -= len(body)
        if self._room < 0:
            raise bad_answer(f"The answers for all elements are larger than {self._state.part.limit} bytes.")
        batch = self._plan.batch
        if batch is None:
            self.results[chunk.keys[0]] = self._shaped(body)
        else:
            found = _told_apart(body, batch, {key: self._values[key] for key in chunk.keys})
            self.results |= {key: self._shaped(content) for key, content in found.items()}
        self._done(chunk)

    def taken(self, reply: Reply, body: bytes) -> bytes:
        """The content of an answer. Raises `GatewayError`."""
        digest = self._state.part.digest_of(reply)
        self._state.digests = (*self._state.digests, digest)
        return digest.take(body)

    def failed(self, chunk: Chunk, error: GatewayError) -> None:
        """A call has none."""
        mark = _encode({"_error": {"kind": error.kind.name, "status": error.status}})
        self._error = self._error or error
        self._failed.update(chunk.keys)
        self.results |= dict.fromkeys(chunk.keys, mark)
        self._done(chunk)

    def _shaped(self, content: bytes) -> bytes:
        for shape in self._state.part.shapes:
            content = shape(content)
        return content

    def _done(self, chunk: Chunk) -> None:
        self._state.sent = max(self._state.sent, chunk.sent)
        self._active.discard(chunk)
        self._pump()

    def _pump(self) -> None:
        """Start what there is room for; without nesting, since calls may end at once."""
        if self._pumping:
            return
        self._pumping = True
        run, plan, asked = self._state.run, self._plan, self._asked
        while self._waiting and len(self._active) < plan.concurrency and not run.over:
            keys = self._waiting.popleft()
            chunk = Chunk(self, run, keys, self._state.part.limit)
            self._active.add(chunk)
            values = [self._values[key] for key in keys]
            chunk.ask(
                asked, {**run.values, "each": values[0] if plan.batch is None else values}, self._until, run.now()
            )
        self._pumping = False
        if not self._waiting and not self._active and not run.over:
            self._finish()

    def _finish(self) -> None:
        if self._error is not None and len(self._failed) == len(self._values):
            self._state.fall(self._error)
            return
        try:
            self._bound()
            items = [self._item(key, element, self._plan.join) for key, element in self._in_place]
            self._state.elements_answered(b"[%b]" % b",".join(items), len(self._failed))
        except GatewayError as error:
            self._state.fall(error)

    def _bound(self) -> None:
        """Equal elements are asked for once and answered each: few bytes may become many. Raises `GatewayError`."""
        limit, results = self._state.part.limit, self.results
        own = 0 if self._plan.join is None else 1  # of the element itself
        size = sum([len(results.get(key, NULL)) + own * len(key) for key, _ in self._in_place])
        if size > limit:
            raise bad_answer(f"The answers for all elements are larger than {limit} bytes.")
        self._state.run.take(size)

    def _item(self, key: bytes, element: Any, join: str | None) -> bytes:
        result = self.results.get(key, NULL)
        if join is None:
            return result
        if not isinstance(element, dict):
            raise PartUnfit(f"{self._plan.of.name} has elements that are no objects, so nothing can be joined to them.")
        return _encode({**element, join: msgspec.Raw(result)})


class Chunk(Asking):
    """One call, for one element or several."""

    def __init__(self, elements: Elements, run: Any, keys: list[bytes], limit: int) -> None:
        self.run = run
        self.limit = limit
        self._elements = elements
        self.keys = keys

    def answered(self, reply: Reply, body: bytes) -> None:
        """See `Asking`."""
        self._elements.succeeded(self, self._elements.taken(reply, body))

    def failed(self, error: GatewayError) -> None:
        """See `Asking`."""
        self.note(error)
        self._elements.failed(self, error)


def _told_apart(content: bytes, batch: Batching, values: dict[bytes, Any]) -> dict[bytes, bytes]:
    """The item of each element, as far as there is one."""
    for step in batch.within:
        if not is_object(content):
            raise bad_answer("The service's answer has no items where they are looked for.")
        content = bytes(members_of(content).get(step, msgspec.Raw(NULL)))
    if is_object(content):
        members = members_of(content)
        names = {key: _name(value, batch.by) for key, value in values.items()}
        return {key: bytes(members[name]) for key, name in names.items() if name in members}
    if not is_list(content):
        raise bad_answer("The service's answer has no items where they are looked for.")
    items = items_of(content)
    if batch.by is None:
        if len(items) != len(values):
            raise bad_answer(f"The service was asked for {len(values)} items and answered {len(items)}.")
        return {key: bytes(item) for key, item in zip(values, items, strict=True)}
    by_value: dict[bytes, bytes] = {}
    for item in items:
        raw = bytes(item)
        member = members_of(raw).get(batch.by) if is_object(raw) else None
        if member is not None:
            by_value[_encode(parse(bytes(member)))] = raw
    known = {key: _encode(_of(value, batch.by)) for key, value in values.items()}
    return {key: by_value[name] for key, name in known.items() if name in by_value}


def _of(value: Any, by: str | None) -> Any:
    """What an element is told by: itself, or a member of it."""
    return value.get(by) if isinstance(value, dict) and by is not None else value


def _name(value: Any, by: str | None) -> str | None:
    try:
        return as_text(_of(value, by))
    except ValueError:
        return None

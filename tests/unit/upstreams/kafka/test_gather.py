"""What a gathering comes to, whoever answers what in which order: against a model of it."""

import json
from types import SimpleNamespace
from typing import Any

from hypothesis import given
from hypothesis import strategies as st

from castlegate.calls.gathering import Gather
from castlegate.errors import CallFailed
from castlegate.upstreams.kafka.dialects.nest import Nest
from castlegate.upstreams.kafka.dialects.plain import Plain
from castlegate.upstreams.kafka.gather import MOST_LISTED, GatherSink
from castlegate.upstreams.kafka.pending import DUPLICATE, LATE, MALFORMED, OK
from castlegate.upstreams.kafka.settings import KafkaService

NAMES = ["a", "b", "c"]
ANSWERS: dict[str, tuple[dict[str, bytes | None], bytes]] = {
    "ok": ({}, b'{"x":1}'),
    "error": ({"error": b"no"}, b""),
    "garbage": ({}, b'{"x":'),
}
wants = st.sampled_from(["all", "first", "any", 2])
records = st.lists(st.tuples(st.sampled_from([*NAMES, "stranger"]), st.sampled_from(list(ANSWERS))), max_size=8)


def sink_of(gather: Gather) -> GatherSink:
    streams = SimpleNamespace(collected=10_000)
    engine: Any = SimpleNamespace(
        timer=SimpleNamespace(now=lambda: 0.0), settings=SimpleNamespace(streams=streams), look_soon=lambda: None
    )
    return GatherSink(gather.gathering(), Plain(KafkaService(dialect="plain")), engine)


def feed(sink: GatherSink, name: str | None, answer: str) -> str:
    headers, value = ANSWERS[answer]
    return sink.feed({**headers, **({} if name is None else {"who": name.encode()})}, value)


def expected(want: str | int, heard: dict[str, str]) -> str | None:
    """`settled` or `failed` if that can be told of who was heard so far."""
    good = sum(answer == "ok" for answer in heard.values())
    failed = len(heard) - good
    if want == "any":
        return None if len(heard) < len(NAMES) else "settled" if good else "failed"
    needed = {"all": len(NAMES), "first": 1}.get(want, want) if isinstance(want, str) else want
    assert isinstance(needed, int)
    return "settled" if good >= needed else "failed" if len(NAMES) - failed < needed else None


@given(wants, records)
def test_a_gathering_ends_as_soon_as_it_can_be_told_and_tells_of_everybody(
    want: Any, records: list[tuple[str, str]]
) -> None:
    sink = sink_of(Gather(of=NAMES, by="who", want=want))
    heard: dict[str, str] = {}
    end: str | None = None
    for name, answer in records:
        kind = feed(sink, name, answer)
        if end is not None:
            assert kind == LATE
        elif name == "stranger":
            assert kind == MALFORMED
        elif name in heard:
            assert kind == DUPLICATE
        else:
            heard[name] = answer
            assert kind == (MALFORMED if answer == "garbage" else OK)
            end = expected(want, heard)
        assert sink.waiter.done() == (end is not None)
        assert sink.done == (len(heard) == len(NAMES))
    good = {name for name, answer in heard.items() if answer == "ok"}
    silent = "skipped"
    if end is None:
        sink.expire()
        end, silent = "settled" if want == "any" and good else "failed", "timeout"
    told = {name: "ok" if name in good else "error" if name in heard else silent for name in NAMES}
    if end == "settled":
        reply = sink.waiter.result()
        assert isinstance(reply.body, bytes)
        document = json.loads(reply.body)
        parts = document.pop("_parts")
        assert set(document) == good
        assert len(reply.headers.get_all(b"castlegate-parts")[0].split(b", ")) == len(NAMES)
    else:
        failure = failed_of(sink)
        parts = failure.members["parts"]
        assert failure.status == (504 if silent == "timeout" else 502)
        assert failure.outcome == ("answered" if len(heard) == len(NAMES) else "unknown")
    assert {name: part["outcome"] for name, part in parts.items()} == told


@given(st.integers(1, 4), st.lists(st.sampled_from(list(ANSWERS)), max_size=6))
def test_without_names_as_many_are_counted_as_come(of: int, answers: list[str]) -> None:
    sink = sink_of(Gather(of=of))
    counted = answers[:of]
    failed = next((index for index, answer in enumerate(counted) if answer != "ok"), None)
    for index, answer in enumerate(answers):
        kind = feed(sink, None, answer)
        assert (kind == LATE) == (index >= of or (failed is not None and index > failed))
    if not sink.waiter.done():
        sink.expire()
    if failed is None and len(counted) == of:
        reply = sink.waiter.result()
        assert isinstance(reply.body, bytes)
        assert json.loads(reply.body) == [{"x": 1}] * of
        assert reply.headers.get(b"castlegate-parts") == b"ok=%d" % of
    else:
        assert failed_of(sink).status == (504 if failed is None else 502)


def test_the_field_lists_so_many_and_counts_the_others() -> None:
    sink = sink_of(Gather(by="who", want="any"))
    names = [f"shop{number}" for number in range(MOST_LISTED + 30)]
    for name in names:
        feed(sink, name, "error" if name == names[-1] else "ok")
    sink.expire()
    reply = sink.waiter.result()
    *listed, rest = (reply.headers.get(b"castlegate-parts") or b"").decode().split(", ")
    assert [member.partition(";")[0] for member in listed] == names[:MOST_LISTED]
    assert rest == "30;ok=29;error=1"
    assert isinstance(reply.body, bytes)
    assert list(json.loads(reply.body)["_parts"]) == names


def test_of_one_that_answers_with_several_values_the_last_one_counts() -> None:
    gathering = Gather(of=["a", "b"], by="who").gathering()
    sink = GatherSink(gathering, Nest(KafkaService(dialect="nest")), sink_of(Gather(of=1))._engine)
    disposed: dict[str, bytes | None] = {"kafka_nest-is-disposed": b"1"}
    for name, headers, value in (
        ("a", {}, b'{"n":1}'), ("b", {}, b'{"m":1}'), ("a", {}, b'{"n":2}'), ("b", disposed, b'{"m":2}'), ("a", disposed, None),
    ):  # fmt: skip
        assert sink.feed({**headers, "who": name.encode()}, value) == OK
    body = sink.waiter.result().body
    assert isinstance(body, bytes)
    document = json.loads(body)
    assert (document["a"], document["b"]) == ({"n": 2}, {"m": 2})


def failed_of(sink: GatherSink) -> CallFailed:
    try:
        sink.waiter.result()
    except CallFailed as failure:
        return failure
    raise AssertionError("it has not failed")

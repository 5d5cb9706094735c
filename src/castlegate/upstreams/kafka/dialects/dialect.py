"""What a dialect is: how a family of services writes request-reply on Kafka, each in one file beside this one.

A dialect is made for one operation of one service when the configuration is loaded and then only translates: it holds
no state of requests, does no I/O and knows neither producer nor inbox.

Header values are raw bytes and a header may repeat: it is written once, and of those received the last one counts
(`ReceivedHeaders` holds just that one). A null value is never sent: NestJS hands the raw record to its handler then.
"""

from __future__ import annotations

from typing import NamedTuple, Protocol

from castlegate.message import Call, Reply

SentHeaders = list[tuple[str, str | bytes | None]]
ReceivedHeaders = dict[str, bytes | None]


class ReplyAddress:
    """Where a service is to answer; one object for as long as the address is the same."""

    __slots__ = ("partition", "topic")

    def __init__(self, topic: str, partition: int | None) -> None:
        self.topic = topic
        self.partition = partition  # None: whichever the service takes


class Record(NamedTuple):
    """What is sent, apart from its key."""

    headers: SentHeaders
    value: bytes


def is_made_by_gateway(call: Call) -> bool:
    """Whether the body is JSON that the gateway made (`send`): what the client said of its own is no word on it."""
    return call.body is not call.request.body


class Value:
    """A record that carries a value: the last one, or one of a stream."""

    __slots__ = ("last", "reply")

    def __init__(self, reply: Reply, *, last: bool = True) -> None:
        self.reply = reply
        self.last = last


class End:
    """A record that says no more than that the stream is over; `empty` is the answer if there was no value at all."""

    __slots__ = ("empty",)

    def __init__(self, empty: Reply) -> None:
        self.empty = empty


Answer = Value | End


class Dialect(Protocol):
    """Both directions of one operation."""

    correlation: str
    """The header of requests and replies that carries the correlation id."""
    partitioned: bool
    """Whether services answer to a partition that they are told; else they get a topic of a single one."""

    def encode(self, call: Call, reply_to: ReplyAddress, correlation_id: bytes) -> Record:
        """The request's value and the headers that are this dialect's own."""

    def decode(self, headers: ReceivedHeaders, value: bytes | None) -> Answer:
        """What a reply says. Raises `CallFailed` for a service's error, and for a reply that makes no sense (502)."""

"""What is said of one message that several services or groups answer."""

from __future__ import annotations

import re
from typing import Literal, NamedTuple

import msgspec

from castlegate.config.report import Place
from castlegate.config.units import Count, Seconds

MOST = 1000
"""Answers that are waited for at most."""
PARTS = "_parts"
"""The member of an answer that tells what became of each part."""

_NAME = re.compile(r"[\x21-\x7e]{1,100}")


class Gather(msgspec.Struct, kw_only=True, frozen=True, forbid_unknown_fields=True):
    """How the answers of several services to one message are put together.

    With `by` the answer is an object with what each of them said under its name, and `_parts` with what became of each;
    without it, an array in the order in which the answers came. The field `castlegate-parts` tells what is
    missing of both.
    """

    of: list[str] | Count | None = None
    """Who is to answer: their names, by the header `by`; or how many. At most 1,000."""
    by: str | None = None
    """Record header of replies that says who answers, in printable ASCII. Who answers twice is heard once. Without it
    answers are only counted."""
    want: Literal["all", "first", "any"] | Count = "all"
    """How many must answer without an error: `all` of them, the `first`, so many; or `any`, which takes what has come
    until the time is over, at least one. As soon as this can be told the client is answered: 502 where too many
    answered with an error, 504 where too few answered in time."""
    wait: Seconds | None = None
    """How long answers are awaited, if that is less than the call's own time."""

    def check(self, at: Place) -> None:
        """What goes together."""
        if any(at.field(name).spoilt for name in ("of", "by", "want")):
            return
        if isinstance(self.of, list):
            self._check_names(self.of, at)
        if self.by is not None and (not self.by or not self.by.isprintable()):
            at.field("by").mistake(f"expected the name of a record header, found {at.field('by').shown(self.by)}")
        count = self.count
        if count is not None and count > MOST:
            at.field("of").mistake(f"must be at most {MOST}, found {count}")
        if self.want == "all" and self.of is None:
            at.mistake("nobody says who 'all' are; write 'of' with their names or how many they are")
        if isinstance(self.want, int) and self.want > (MOST if count is None else count):
            of = "there can be" if count is None else "there are in 'of'"
            at.field("want").mistake(f"{self.want} are more than {of}, {MOST if count is None else count}")

    def _check_names(self, names: list[str], at: Place) -> None:
        place = at.field("of")
        if not names:
            place.mistake("this leaves nobody who could answer; name them")
        for index, name in enumerate(names):
            if not _NAME.fullmatch(name) or name == PARTS:
                place.field(index).mistake(f"not a name that an answer can have: {place.field(index).shown(name)}")
            elif name in names[:index]:
                place.field(index).mistake("this is named twice")
        if self.by is None:
            place.mistake("names are known by a header of the replies; say which with 'by', or write how many they are")

    @property
    def count(self) -> int | None:
        """How many are to answer, if that is said."""
        return len(self.of) if isinstance(self.of, list) else self.of

    def gathering(self) -> Gathering:
        """The same, to be compared and kept."""
        names = tuple(self.of) if isinstance(self.of, list) else ()
        want = self.want if isinstance(self.want, int) else {"all": self.count, "first": 1, "any": None}[self.want]
        return Gathering(names, self.count, want, self.by)


class Gathering(NamedTuple):
    """What is gathered of one message."""

    names: tuple[str, ...]
    """Who is to answer, where names are said."""
    number: int | None
    """How many are to answer, if that is said."""
    want: int | None
    """How many must; None: those that do in time."""
    by: str | None
    """The header that says who answers."""

    def describe(self) -> str:
        """In words."""
        whom = " of " + (", ".join(self.names) or str(self.number)) if self.number is not None else ""
        wanted = "what comes in time" if self.want is None else f"{self.want}"
        return f"{wanted}{whom}" + (f", told by the header {self.by}" if self.by else ", counted")


def within(gather: Gather | None, timeout: float) -> float:
    """Seconds that a call may take."""
    return timeout if gather is None or gather.wait is None else min(timeout, gather.wait)

"""A table in memory that the workers of an instance share: numbers by a key of 64 bits, bounded, exact.

It is a row of sets of sixteen places. A key belongs to one set; where that is full, the place whose first number is the
smallest is given to the new key. Each set has a lock that the system releases when its holder dies (a POSIX record
lock: two system calls, 0.6 us together), held for the few lines that read, decide and write. Its holder may
lose the processor just there; whoever does not get it within some milliseconds goes on without, and may err by one,
rather than wait for a process that was stopped.

Layout, in words of eight bytes: the sixteen keys of a set, then sixteen numbers for each plane. The key 0 is no key.
"""

from __future__ import annotations

import fcntl
import mmap
import time

WAYS = 16  # places of a set
_WORD = 8  # bytes
_KEYS = WAYS * _WORD  # bytes that the keys of a set take
_AT_ONCE = 50  # tries one after another, about 50 us: many times what a lock is held for
_NAP = 0.0001  # seconds between further tries: its holder has lost the processor
_TRIES = _AT_ONCE + 100  # some 15 ms in all
_EXCLUSIVE = fcntl.LOCK_EX | fcntl.LOCK_NB


def sets_for(keys: int) -> int:
    """How many sets hold so many keys: half of the places stay free, so that few sets are full before all are."""
    return 1 << max(0, (2 * keys - 1) // WAYS).bit_length()


class Table:
    """See the module. What reads and writes numbers of a key does so between `lock` and `unlock` of its set."""

    __slots__ = ("_block", "_first", "_lock", "_map", "_mask", "held", "missed", "planes", "sets", "start", "words")

    def __init__(self, memory: mmap.mmap, start: int, sets: int, planes: int, lock: int, held: int) -> None:
        """From the byte `start` on; `lock` is a descriptor of the memory, or -1 where nobody else has it; `held` is the
        word where this process counts the places that it was the first to take.
        """
        self.words = memoryview(memory).cast("q")
        self.start = start
        self.sets = sets
        self.planes = planes
        self.held = held
        self._map = memory
        self._first = start // _WORD
        self._block = WAYS * (1 + planes)  # words of a set
        self._mask = sets - 1
        self._lock = lock
        self.missed = 0  # times that this process went on without a lock

    @staticmethod
    def size(sets: int, planes: int) -> int:
        """Bytes."""
        return sets * WAYS * (1 + planes) * _WORD

    def place_of(self, key: bytes) -> int:
        """The set of a key: the word that it begins at."""
        return self._first + (int.from_bytes(key, "little") & self._mask) * self._block

    def begin_of(self, number: int) -> int:
        """The word that a set begins at, by its number."""
        return self._first + number * self._block

    def number_of(self, base: int) -> int:
        """Of the set that begins at this word."""
        return (base - self._first) // self._block

    def lock(self, base: int) -> None:
        """Have the set alone, if that is to be had at once."""
        if self._lock < 0:
            return
        for number in range(_TRIES):
            try:
                fcntl.lockf(self._lock, _EXCLUSIVE, 1, base)
            except OSError:
                time.sleep(0 if number < _AT_ONCE else _NAP)  # 0 lets others have the processor
            else:
                return
        self.missed += 1

    def unlock(self, base: int) -> None:
        """Let others have it."""
        if self._lock >= 0:
            fcntl.lockf(self._lock, fcntl.LOCK_UN, 1, base)

    def find(self, base: int, key: bytes) -> int:
        """Where the key's number of the first plane is; 0 if the table does not have it. Those of the further planes
        follow `WAYS` words apart.
        """
        begin = base * _WORD
        keys = self._map[begin : begin + _KEYS]
        at = keys.find(key)
        while at >= 0 and at % _WORD:  # across two keys
            at = keys.find(key, at + 1)
        return base + WAYS + at // _WORD if at >= 0 else 0

    def smallest(self, base: int) -> int:
        """The place of the set that is free, or whose first number is the smallest."""
        begin = base + WAYS
        numbers = self.words[begin : begin + WAYS].tolist()
        return begin + numbers.index(min(numbers))

    def claim(self, at: int, base: int, key: bytes) -> None:
        """Give a place to a key; its numbers are none then."""
        words, way = self.words, base + (at - base) % WAYS
        if words[way] == 0:
            words[self.held] += 1
        words[way] = 0  # so that nobody who looks without the lock finds another's numbers
        for plane in range(self.planes):
            words[at + plane * WAYS] = 0
        words[way] = int.from_bytes(key, "little", signed=True)

    def close(self) -> None:
        """Let go of the memory."""
        self.words.release()

"""What the supervisor tells workers of a service's instances: who there are, who is not well, who is drained.

All of it each time, so that a worker which has just been started knows what the others do.
"""

from __future__ import annotations

import msgspec

from castlegate.config.addresses import parse_origin
from castlegate.rules.instances import Out
from castlegate.upstreams.http.discovery import Member
from castlegate.upstreams.http.upstream import HttpUpstream

CHECK = "check"
"""Who holds out an instance that did not pass its checks."""


class Roster(msgspec.Struct, frozen=True):
    """Of one service. Instances go by their names, `host:port`."""

    members: list[Member] | None = None
    """None: those of the configuration."""
    ill: dict[str, Out] = {}
    drained: dict[str, float] = {}
    """Since when, in loop time."""
    reached: dict[str, float] = {}
    """When the latest check began that passed, of instances that workers have taken out; loop time."""
    found_by: str | None = None
    """What found the members: an upstream that is told by something else, before or after a reload, keeps its own."""

    def settle(self, upstream: HttpUpstream, now: float) -> None:
        """Have a worker's instances be as it says. Loop time is the same in all processes of a machine."""
        with upstream.instances.together():
            if self.members is not None and upstream.found_by == self.found_by:
                self._exchange(upstream, self.members)
            instances = upstream.instances
            for each in instances.members:
                out, drained = self.ill.get(each.name), each.name in self.drained
                if out is not None:
                    instances.take_out(each, CHECK, out.why, out.since)
                elif CHECK in each.outs:
                    instances.put_back(each, CHECK, now)
                if drained and each.drained_since is None:
                    instances.drain(each, self.drained[each.name])
                elif not drained and each.drained_since is not None:
                    instances.resume(each, now)
                if each.name in self.reached and upstream.ejecting is not None:
                    upstream.ejecting.reached(each, self.reached[each.name])

    def _exchange(self, upstream: HttpUpstream, members: list[Member]) -> None:
        wanted = {parse_origin(each.url).authority: each for each in members}
        there = set()
        for each in list(upstream.instances.members):
            member = wanted.get(each.name)
            if member is None or (member.weight, member.priority) != (each.weight, each.priority):
                upstream.remove(each)
            else:
                there.add(each.name)
        for name, member in wanted.items():
            if name not in there:
                upstream.add(member.url, member.weight, member.priority)


def own_outs(upstream: HttpUpstream) -> dict[str, dict[str, Out]]:
    """By instance, who of this worker holds it out."""
    found = {}
    for each in upstream.instances.members:
        if each.outs and (outs := {by: out for by, out in each.outs.items() if by != CHECK}):
            found[each.name] = outs
    return found

"""Tokens of a real OpenID provider (npm `oidc-provider`), its rotations and its outages."""

import asyncio
from collections.abc import Iterator
from pathlib import Path

import pytest
from tests.testbeds.gateway import Gateway
from tests.testbeds.load import Load, Seen
from tests.testbeds.openid import OpenIdProvider
from tests.testbeds.tokens import Signer, claims, compact
from tests.testbeds.wire import Client, Origin
from tests.wire.conftest import Start

ONE, TWO, FOREIGN = Signer("RS256", "one"), Signer("RS256", "two"), Signer("RS256", "one")
# Due soon, so that an outage is felt.
SHORT = "refresh: 500ms, at_least: 100ms, at_most: 500ms"


@pytest.fixture
def provider(tmp_path: Path) -> Iterator[OpenIdProvider]:
    provider = OpenIdProvider(tmp_path / "oidc.log", ONE)
    yield provider
    provider.kill()


def config(provider: OpenIdProvider, origin: Origin, fetch: str = "") -> str:
    return f"""
auth: {{idp: {{jwt: {{issuer: "{provider.url}", audience: api, fetch: {{{fetch}}}}}}}}}
services: {{origin: {{http: ["http://127.0.0.1:{origin.port}"]}}}}
defaults: {{auth: idp}}
routes:
  GET /x/{{kind}}:
    call: origin
    headers: {{request: {{x-client: "{{claims.client_id}}", x-subject: "{{principal.subject}}"}}}}
"""


def ask(gateway: Gateway, token: bytes) -> tuple[int, dict[str, str]]:
    with Client(gateway.port) as client:
        head = b"GET /x/one HTTP/1.1\r\nHost: x\r\nAuthorization: Bearer %b\r\n\r\n"
        return client.send(head % token).read_answer()[:2]


def test_its_tokens_are_accepted_and_a_rotation_is_noticed_once(
    start: Start, origin: Origin, provider: OpenIdProvider
) -> None:
    provider.start()
    gateway = start(config(provider, origin))
    old = provider.token()
    assert ask(gateway, old)[0] == 200
    assert b"\r\nx-client: shop\r\nx-subject: shop\r\n" in origin.seen[0]
    assert provider.fetches == 1

    provider.rotate(TWO, ONE)
    tokens = [provider.token() for _ in range(20)]
    clients = [Client(gateway.port) for _ in tokens]
    for client, token in zip(clients, tokens, strict=True):
        client.send(b"GET /x/one HTTP/1.1\r\nHost: x\r\nAuthorization: Bearer %b\r\n\r\n" % token)
    assert {client.read_answer()[0] for client in clients} == {200}
    for client in clients:
        client.socket.close()
    assert provider.fetches == 2
    assert ask(gateway, old)[0] == 200, "its key is still published"


def test_a6_it_may_start_later_and_go_away(start: Start, origin: Origin, provider: OpenIdProvider) -> None:
    gateway = start(config(provider, origin, SHORT))
    gateway.program.wait_for_line("its keys cannot be fetched")
    status, fields = ask(gateway, ONE.token(iss=provider.url))
    assert (status, fields["retry-after"]) == (503, "5")
    provider.start()
    tokens = [provider.token() for _ in range(4)]
    gateway.program.wait_until(lambda: ask(gateway, tokens[0])[0] == 200, "its keys", 5)
    failures = gateway.program.line_count
    provider.kill()
    gateway.program.wait_for_line("its keys cannot be fetched", after=failures)
    assert [ask(gateway, token)[0] for token in tokens] == [200] * 4
    assert ask(gateway, FOREIGN.token(iss=provider.url))[0] == 401


class Attackers:
    """Good tokens, and what must never pass, at once and without a pause."""

    def __init__(self, gateway: Gateway, provider: OpenIdProvider, good: list[bytes]) -> None:
        past = claims(iss=provider.url, exp=1_000_000_000)
        bad = [
            FOREIGN.token(iss=provider.url),
            FOREIGN.token(header={"kid": "nobody"}, iss=provider.url),
            compact({"alg": "none", "kid": "one"}, claims(iss=provider.url), lambda _: b""),
            compact(ONE.header, past, ONE.sign),
            good[0] + b"A",
        ]
        self._tokens = {"good": good, "bad": bad}
        self._gateway = gateway
        self._stop = False
        self._news = asyncio.Event()
        self.seen: dict[str, list[Seen]] = {"good": [], "bad": []}

    async def run(self, kill: OpenIdProvider | None) -> None:
        """Until they have seen what there is to see: with `kill`, also what comes of its end."""
        async with Load(self._gateway.port) as load:
            kinds = [asyncio.create_task(self._ask(load, kind, turn)) for kind in self._tokens for turn in range(4)]
            await self._more(100)
            if kill is not None:
                await asyncio.to_thread(kill.kill)
                await asyncio.to_thread(self._gateway.program.wait_for_line, "its keys cannot be fetched")
                await self._more(100)
            self._stop = True
            await asyncio.gather(*kinds)

    async def _more(self, count: int) -> None:
        """Until so many further answers of each kind have come."""
        wanted = {kind: len(seen) + count for kind, seen in self.seen.items()}
        async with asyncio.timeout(30):
            while any(len(self.seen[kind]) < wanted[kind] for kind in wanted):
                self._news.clear()
                await self._news.wait()

    async def _ask(self, load: Load, kind: str, turn: int) -> None:
        tokens = self._tokens[kind]
        while not self._stop:
            token = tokens[turn % len(tokens)].decode()
            seen = await load.ask(f"/x/{kind}", method="GET", fields=f"Authorization: Bearer {token}\r\n")
            self.seen[kind].append(seen)
            self._news.set()
            turn += 1

    def statuses(self, kind: str) -> set[int]:
        """That were seen."""
        return {seen.status for seen in self.seen[kind]}


def test_its_end_in_the_middle_of_load_opens_nothing(start: Start, origin: Origin, provider: OpenIdProvider) -> None:
    provider.start()
    gateway = start(config(provider, origin, SHORT))
    attackers = Attackers(gateway, provider, [provider.token() for _ in range(50)])
    asyncio.run(attackers.run(provider))
    assert attackers.statuses("good") == {200}
    assert attackers.statuses("bad") <= {401, 503}
    assert not [seen for seen in origin.seen if b" /x/bad " in seen]


def test_without_it_ever_there_nothing_is_open(start: Start, origin: Origin, provider: OpenIdProvider) -> None:
    gateway = start(config(provider, origin))
    attackers = Attackers(gateway, provider, [ONE.token(iss=provider.url)])
    asyncio.run(attackers.run(None))
    assert attackers.statuses("good") == {503}
    assert attackers.statuses("bad") <= {401, 503}
    assert origin.seen == []

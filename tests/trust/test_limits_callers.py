"""Limits of callers who prove who they are: what is judged before that and what behind it, and limits of their own."""

from collections.abc import Iterator
from pathlib import Path

import pytest
from click.testing import CliRunner
from tests.testbeds.gateway import Gateway
from tests.testbeds.wire import Client, Origin, answer
from tests.trust.conftest import CLOSING
from tests.trust.issuing import know_people, login, make_key

from castlegate.cli.main import main

CONFIG = """
auth:
  keys: {{keys: {{file: partners.keys}}}}
services: {{origin: {{http: ["http://127.0.0.1:{port}"]}}}}
defaults: {{auth: keys, limit: [{{rate: 1/h, per: principal}}, {{rate: 3/h, per: address}}]}}
routes:
  GET /open: {{call: origin, public: true}}
  GET /own: {{call: origin, limit: {{rate: 2/h, per: key, own: true}}}}
  GET /owner: {{call: origin, limit: {{rate: 3/h, per: principal}}}}
  GET /tier: {{call: origin, limit: {{rate: 1/h, per: "{{claims.tier}}"}}}}
  GET /guarded: {{call: origin, limit: 4/h}}
  GET /scoped: {{call: origin, scopes: [admin], limit: {{rate: 2/h, per: route}}}}
"""


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("gateway")


@pytest.fixture(scope="module")
def keys(folder: Path) -> dict[str, str]:
    """Three keys of two owners; the first has a limit of its own, the last may do everything."""
    made = {}
    for name, *more in (
        ("first", "--owner", "acme", "--claim", "tier=gold", "--limit", "4/h"),
        ("second", "--owner", "acme", "--claim", "tier=gold"),
        ("third", "--owner", "other", "--claim", "tier=tin", "--scope", "admin"),
    ):
        done = CliRunner().invoke(main, ["key", "new", str(folder / "partners.keys"), "--id", name, *more])
        assert done.exit_code == 0, done.output
        made[name] = done.stdout.strip()
    return made


@pytest.fixture(scope="module")
def gateway(folder: Path, keys: dict[str, str]) -> Iterator[Gateway]:
    with Origin(answer(CLOSING)) as origin:
        gateway = Gateway(folder, CONFIG.format(port=origin.port))
        yield gateway
        gateway.stop()


@pytest.fixture
def client(gateway: Gateway) -> Iterator[Client]:
    with Client(gateway.port) as client:
        yield client


def statuses(client: Client, path: str, key: str, times: int) -> list[int]:
    request = f"GET {path} HTTP/1.1\r\nHost: h\r\nX-API-Key: {key}\r\n\r\n".encode()
    return [client.send(request).read_answer()[0] for _ in range(times)]


def test_keys_may_have_a_limit_of_their_own(client: Client, keys: dict[str, str]) -> None:
    assert statuses(client, "/own", keys["first"], 5) == [200] * 4 + [429]
    assert statuses(client, "/own", keys["second"], 3) == [200, 200, 429]


def test_the_keys_of_an_owner_count_together_and_those_of_a_claim(client: Client, keys: dict[str, str]) -> None:
    assert statuses(client, "/owner", keys["first"], 2) == [200, 200]
    assert statuses(client, "/owner", keys["second"], 2) == [200, 429]
    assert statuses(client, "/owner", keys["third"], 1) == [200]
    assert statuses(client, "/tier", keys["first"], 1) == [200]
    assert statuses(client, "/tier", keys["second"], 1) == [429]
    assert statuses(client, "/tier", keys["third"], 1) == [200]


def test_who_tries_credentials_is_limited_by_address(client: Client, keys: dict[str, str]) -> None:
    assert statuses(client, "/guarded", "nonsense", 6) == [401] * 4 + [429] * 2
    assert statuses(client, "/guarded", keys["first"], 1) == [429]


def test_who_is_refused_uses_up_nothing_of_others(client: Client, keys: dict[str, str]) -> None:
    assert statuses(client, "/scoped", "nonsense", 5) == [401] * 5
    assert statuses(client, "/scoped", keys["first"], 5) == [403] * 5
    assert statuses(client, "/scoped", keys["third"], 3) == [200, 200, 429]
    assert statuses(client, "/scoped", "nonsense", 1) == [401]


def test_public_routes_take_from_defaults_what_is_not_per_caller(client: Client) -> None:
    assert statuses(client, "/open", "nonsense", 5) == [200] * 3 + [429] * 2


def test_who_tries_passwords_is_limited_on_the_login_of_the_issuer(tmp_path: Path) -> None:
    key = make_key(tmp_path, "issuer.pem")
    with Origin(know_people) as people:
        text = f"""
services: {{people: {{http: ["http://127.0.0.1:{people.port}"]}}}}
issuer:
  url: https://shop.example.com
  audience: shop
  keys: [{key}]
  state: {{file: tokens.db}}
  login: {{call: people, limit: 3/h}}
routes: {{GET /x: {{call: people, public: true}}}}
"""
        gateway = Gateway(tmp_path, text)
        found = [login(gateway.port, "ann", f"guess {number}").status for number in range(5)]
        assert found == [401] * 3 + [429] * 2
        assert len(people.seen) == 3
        gateway.stop()

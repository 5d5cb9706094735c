"""What services that speak HTTP are told of who calls, and that no client can say it in their place."""

import re
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from cryptography.hazmat.primitives.asymmetric import ec, ed25519, rsa
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat, PublicFormat
from joserfc import jwt
from joserfc.jwk import ECKey, OKPKey, RSAKey
from tests.testbeds.gateway import Gateway
from tests.testbeds.wire import Client, Origin

CONFIG = """
auth:
  keys: {{keys: {{file: partners.keys}}}}
identity:
  headers:
    x-user-id: "{{principal.subject}}"
    X-User-Scopes: "{{principal.scopes?}}"
    x-user-mail: "{{claims.mail?}}"
  token: {{key: identity.pem, claims: [tier, none], issuer: https://gateway.example}}
services:
  origin: {{http: ["http://127.0.0.1:{port}"]}}
  quiet: {{http: ["http://127.0.0.1:{port}"], identity: none}}
  other: {{http: ["http://127.0.0.1:{port}"], identity: {{headers: {{x_caller: "{{claims.mail}}"}}}}}}
defaults: {{auth: keys}}
routes:
  ANY /known: {{call: origin}}
  GET /open: {{call: origin, public: true}}
  GET /quiet: {{call: quiet}}
  GET /other: {{call: other}}
"""


@pytest.fixture(scope="module")
def origin() -> Iterator[Origin]:
    with Origin() as origin:
        yield origin


@pytest.fixture
def seen(origin: Origin) -> Iterator[list[bytes]]:
    """The requests of this test; the connections that they came over are closed behind it."""
    origin.seen.clear()
    yield origin.seen
    origin.hang_up()


def new_key(folder: Path, owner: str, *more: str) -> str:
    command = [sys.executable, "-m", "castlegate.cli.main", "key", "new", "partners.keys", "--owner", owner, *more]
    done = subprocess.run(command, cwd=folder, capture_output=True, text=True, timeout=30, check=True)
    return done.stdout.strip()


def write_key(path: Path, key: Any) -> Any:
    """The public one."""
    path.touch(0o600)
    path.write_bytes(key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption()))
    return key.public_key().public_bytes(Encoding.PEM, PublicFormat.SubjectPublicKeyInfo)


class Rig:
    """A gateway whose clients are `ann`, who has scopes and claims, and `bob`, who has neither."""

    def __init__(self, folder: Path, port: int) -> None:
        self.ann = new_key(
            folder, "ann", "--scope", "b", "--scope", "a", "--claim", "mail=ann@x", "--claim", "tier=gold"
        )
        self.bob = new_key(folder, "bob")
        self.public = OKPKey.import_key(write_key(folder / "identity.pem", ed25519.Ed25519PrivateKey.generate()))
        self.gateway = Gateway(folder, CONFIG.format(port=port))

    def ask(self, path: str, *fields: str, key: str = "", method: str = "GET") -> int:
        with Client(self.gateway.port) as client:
            return self.ask_on(client, path, *fields, key=key, method=method)

    def ask_on(self, client: Client, path: str, *fields: str, key: str = "", method: str = "GET") -> int:
        lines = [f"{method} {path} HTTP/1.1", "Host: h", *([f"X-API-Key: {key}"] if key else []), *fields, "", ""]
        return client.send("\r\n".join(lines).encode()).read_answer()[0]


@pytest.fixture(scope="module")
def rig(tmp_path_factory: pytest.TempPathFactory, origin: Origin) -> Iterator[Rig]:
    rig = Rig(tmp_path_factory.mktemp("identity"), origin.port)
    yield rig
    rig.gateway.stop()


def fields_of(request: bytes) -> list[tuple[str, str]]:
    """In lower case, as they came."""
    lines = request.partition(b"\r\n\r\n")[0].decode().split("\r\n")[1:]
    return [(name.lower(), value) for name, _, value in (line.partition(": ") for line in lines)]


def told(request: bytes) -> dict[str, str]:
    """What is said of the caller, in whatever spelling, each once."""
    found = [
        (name, value)
        for name, value in fields_of(request)
        if re.sub("[^a-z0-9]", "-", name).startswith(("x-user-", "x-caller", "x-identity-"))
    ]
    assert len(dict(found)) == len(found)
    return dict(found)


@pytest.mark.filterwarnings("ignore:EdDSA is deprecated")
def test_a_service_is_told_who_calls(rig: Rig, seen: list[bytes]) -> None:
    assert rig.ask("/known", key=rig.ann) == 200
    assert rig.ask("/known", key=rig.bob) == 200
    ann, bob = map(told, seen)
    token = ann.pop("x-identity-token")
    assert ann == {"x-user-id": "ann", "x-user-scopes": "a b", "x-user-mail": "ann@x"}
    assert bob.keys() == {"x-user-id", "x-identity-token"}
    decoded = jwt.decode(token, rig.public, algorithms=["EdDSA"])
    assert decoded.header == {"typ": "JWT", "alg": "EdDSA", "kid": rig.public.thumbprint()}
    claims = decoded.claims
    assert claims.pop("exp") - claims["iat"] == 30
    assert abs(claims.pop("iat") - time.time()) < 5
    assert claims == {
        "iss": "https://gateway.example", "sub": "ann", "aud": "origin", "scope": "a b", "tier": "gold",
    }  # fmt: skip


def test_a_token_is_made_once_for_many_requests(rig: Rig, seen: list[bytes]) -> None:
    with Client(rig.gateway.port) as client:
        for _ in range(3):
            assert rig.ask_on(client, "/known", key=rig.ann) == 200
    assert len({told(request)["x-identity-token"] for request in seen}) == 1


def test_a_service_may_be_told_something_else_or_nothing(rig: Rig, seen: list[bytes]) -> None:
    for path in ("/quiet", "/other", "/open"):
        assert rig.ask(path, key=rig.ann) == 200
    assert [told(request) for request in seen] == [{}, {"x_caller": "ann@x"}, {}]


def test_a_caller_of_whom_too_little_is_known_is_refused(rig: Rig, seen: list[bytes]) -> None:
    assert rig.ask("/other", key=rig.bob) == 403
    assert not seen


SPELLINGS = [
    "X-User-Id", "x-user-id", "X-USER-ID", "X_User_Id", "x_user_id", "X-User_Id", "x.user.id", "x-user.id", "x~user~id",
    "X-User-Scopes", "x_user_scopes", "X-User-Mail", "x_user-mail", "X-Identity-Token", "x_identity_token",
    "X-Caller", "x_caller", "X_CALLER",
]  # fmt: skip


@pytest.mark.parametrize("path", ["/known", "/open", "/quiet", "/other"])
def test_no_spelling_of_what_services_are_told_passes(rig: Rig, seen: list[bytes], path: str) -> None:
    assert rig.ask(path, key=rig.ann) == 200
    honest = told(seen.pop())
    for name in SPELLINGS:
        forged = [f"{name}: root", "X-Kept: 1", f"{name}: root", f"{name.swapcase()}:root"]
        assert rig.ask(path, *forged, key=rig.ann) == 200, name
        assert rig.ask(path, *forged, f"Connection: {name}, x-user-id, keep-alive", key=rig.ann) == 200, name
    assert len(seen) == 2 * len(SPELLINGS)
    for request in seen:
        assert b"root" not in request
        assert b"\r\nx-kept: 1\r\n" in request
        assert told(request) == honest


def test_connection_cannot_name_away_what_services_are_told(rig: Rig, seen: list[bytes]) -> None:
    names = "x-user-id, X-User-Scopes, x-identity-token, close"
    assert rig.ask("/known", f"Connection: {names}", key=rig.ann) == 200
    assert told(seen[0])["x-user-id"] == "ann"


def test_trailers_say_nothing_of_callers(rig: Rig, seen: list[bytes]) -> None:
    body = "2\r\nhi\r\n0\r\nX-User-Id: root"
    assert rig.ask("/known", "Transfer-Encoding: chunked", "", body, key=rig.ann, method="POST") == 200
    assert b"root" not in seen[0]


def test_malformed_names_are_refused(rig: Rig, seen: list[bytes]) -> None:
    for line in ("X-User-Id : root", "X-User-Id\t: root", "X User Id: root", " X-User-Id: root", "X-User-Id\x00: root"):
        assert rig.ask("/known", "A: b", line, key=rig.ann) == 400, line
    assert not seen


def test_a_reload_changes_the_names_for_connections_that_are_open_too(
    tmp_path: Path, seen: list[bytes], origin: Origin
) -> None:
    rig = Rig(tmp_path, origin.port)
    try:
        with Client(rig.gateway.port) as client:
            forged = ["X-User-Id: root", "X-Person: root"]
            assert rig.ask_on(client, "/known", *forged, key=rig.ann) == 200
            rig.gateway.rewrite(CONFIG.format(port=origin.port).replace("x-user-id", "x-person"))
            rig.gateway.program.send_signal(signal.SIGHUP)
            rig.gateway.program.wait_until(
                lambda: rig.gateway.workers()[0]["version"] == 2, "the new file to be served"
            )
            assert rig.ask_on(client, "/known", *forged, key=rig.ann) == 200
            assert rig.ask_on(client, "/open", *forged, key=rig.ann) == 200
    finally:
        rig.gateway.stop()
    before, after, public = [dict(fields_of(request)) for request in seen]
    assert (before["x-user-id"], before["x-person"]) == ("ann", "root")
    assert (after["x-user-id"], after["x-person"]) == ("root", "ann")
    assert "x-person" not in public


@pytest.mark.parametrize(
    ("private", "kind", "algorithm"),
    [
        (ec.generate_private_key(ec.SECP256R1()), ECKey, "ES256"),
        (rsa.generate_private_key(65537, 2048), RSAKey, "RS256"),
    ],
    ids=["P-256", "RSA"],
)
def test_tokens_are_signed_as_the_key_is_made_for(
    tmp_path: Path, seen: list[bytes], origin: Origin, private: Any, kind: Any, algorithm: str
) -> None:
    ann = new_key(tmp_path, "ann")
    public = kind.import_key(write_key(tmp_path / "identity.pem", private))
    gateway = Gateway(tmp_path, CONFIG.format(port=origin.port))
    try:
        with Client(gateway.port) as client:
            client.send(f"GET /known HTTP/1.1\r\nHost: h\r\nX-API-Key: {ann}\r\n\r\n".encode()).read_answer()
    finally:
        gateway.stop()
    assert jwt.decode(told(seen[0])["x-identity-token"], public, algorithms=[algorithm]).claims["sub"] == "ann"

"""Tokens through the real gateway: when they are good, and the life of the keys that say so."""

import json
import re
import signal
import time
from base64 import urlsafe_b64decode
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path

import pytest
from cryptography.hazmat.primitives.asymmetric import ed25519
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat
from tests.testbeds.certificates import Authority, serving
from tests.testbeds.gateway import Gateway
from tests.testbeds.key_server import KeyServer
from tests.testbeds.tokens import ISSUER, Signer, claims, compact, secret_signer
from tests.testbeds.wire import Client, Origin
from tests.wire.conftest import Start

ONE, TWO, THREE = (Signer("ES256", name) for name in ("one", "two", "three"))
SECRET = "correct-horse-battery-staple-and-more"


@pytest.fixture
def provider() -> Iterator[KeyServer]:
    with KeyServer(ONE) as provider:
        yield provider


def config(origin: Origin, jwt: str, more: str = "") -> str:
    return f"""
{more}
auth: {{idp: {{jwt: {{audience: api, {jwt}}}}}}}
services: {{origin: {{http: ["http://127.0.0.1:{origin.port}"]}}}}
defaults: {{auth: idp}}
routes: {{GET /x: {{call: origin}}}}
"""


def by_jwks(provider: KeyServer, fetch: str = "") -> str:
    return f'issuer: "{ISSUER}", jwks: "{provider.url}/jwks", fetch: {{{fetch}}}'


def send(client: Client, token: bytes, *, path: str = "/x", field: str = "Authorization: Bearer ") -> Client:
    return client.send(f"GET {path} HTTP/1.1\r\nHost: x\r\n{field}".encode() + token + b"\r\n\r\n")


def ask(
    gateway: Gateway, token: bytes, path: str = "/x", field: str = "Authorization: Bearer "
) -> tuple[int, dict[str, str], bytes]:
    with Client(gateway.port, 10) as client:
        return send(client, token, path=path, field=field).read_answer()


def status(gateway: Gateway, token: bytes) -> int:
    return ask(gateway, token)[0]


def wait_for(gateway: Gateway, token: bytes, wanted: int, within_s: float) -> None:
    gateway.program.wait_until(lambda: status(gateway, token) == wanted, f"{wanted} for a token", within_s)


def have_keys(gateway: Gateway) -> None:
    """Wait for them: until they are there, requests wait too."""
    sample = f'castlegate_jwks_fetches_total{{issuer="{ISSUER}",result="ok"}}'
    gateway.program.wait_until(lambda: gateway.metrics().get(sample, 0) >= 1, "keys")


# --- a good token


def test_who_calls_is_known_to_the_route(start: Start, origin: Origin, provider: KeyServer) -> None:
    gateway = start(f"""
auth: {{idp: {{jwt: {{audience: api, {by_jwks(provider)}}}}}}}
services: {{origin: {{http: ["http://127.0.0.1:{origin.port}"]}}}}
defaults: {{auth: idp}}
routes:
  GET /x:
    call: origin
    headers: {{request: {{x-user: "{{principal.subject}}", x-mail: "{{claims.mail}}", x-token: "{{principal.credential}}"}}}}
""")
    token = ONE.token(sub="ann", mail="ann@example.com", jti="t-1")
    assert [status(gateway, token) for _ in range(3)] == [200, 200, 200]
    assert all(b"\r\nx-user: ann\r\nx-mail: ann@example.com\r\nx-token: t-1\r\n" in seen for seen in origin.seen)
    found = gateway.metrics()
    assert found['castlegate_jwt_tokens_total{scheme="idp",result="verified"}'] == 1
    assert found['castlegate_jwt_tokens_total{scheme="idp",result="remembered"}'] == 2


def test_a_refusal_says_what_is_wrong_and_how_to_do_it(start: Start, origin: Origin, provider: KeyServer) -> None:
    gateway = start(config(origin, by_jwks(provider)))
    answered, fields, body = ask(gateway, ONE.token(exp=int(time.time()) - 100))
    assert answered == 401
    assert fields["www-authenticate"] == 'Bearer error="invalid_token", error_description="The token has expired."'
    assert json.loads(body)["detail"] == "The token has expired."
    with Client(gateway.port) as client:
        answered, fields, body = client.send(b"GET /x HTTP/1.1\r\nHost: x\r\n\r\n").read_answer()
    assert (answered, fields["www-authenticate"]) == (401, "Bearer")
    assert ask(gateway, b"dXNlcjpwYXNz", field="Authorization: Basic ")[1]["www-authenticate"] == "Bearer"
    assert ask(gateway, ONE.token(), field="Authorization: bEARER  ")[0] == 200
    assert ask(gateway, ONE.token() + b"\r\nAuthorization: Bearer x")[0] == 401
    assert gateway.metrics()['castlegate_jwt_tokens_total{scheme="idp",result="expired"}'] == 1


def test_a3_clocks_may_differ_by_a_minute(start: Start, origin: Origin, provider: KeyServer) -> None:
    gateway = start(config(origin, by_jwks(provider)))
    for claim, seconds, wanted in (("exp", -61, 401), ("exp", -58, 200), ("nbf", 58, 200), ("nbf", 62, 401)):
        assert status(gateway, ONE.token(**{claim: int(time.time()) + seconds})) == wanted, (claim, seconds)


def test_what_services_are_told_holds_for_as_long_as_the_token_is_believed(
    tmp_path: Path, start: Start, origin: Origin, provider: KeyServer
) -> None:
    key = ed25519.Ed25519PrivateKey.generate()
    file = tmp_path / "identity.pem"
    file.write_bytes(key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption()))
    gateway = start(config(origin, by_jwks(provider), f"identity: {{token: {{key: {file}}}}}"))
    ended = int(time.time()) - 10
    assert status(gateway, ONE.token(exp=ended)) == 200
    found = re.search(rb"x-identity-token: [^.]+\.([^.]+)\.", origin.seen[0])
    assert found is not None
    claims = json.loads(urlsafe_b64decode(found[1] + b"=="))
    assert time.time() < claims["exp"] <= time.time() + 30


def test_a_remembered_token_ends_with_its_time(start: Start, origin: Origin, provider: KeyServer) -> None:
    gateway = start(config(origin, by_jwks(provider) + ", leeway: 0s"))
    have_keys(gateway)
    token = ONE.token(exp=time.time() + 1.0)
    assert status(gateway, token) == 200
    wait_for(gateway, token, 401, 3)


# --- where keys and tokens are


@pytest.fixture(scope="module")
def many(tmp_path_factory: pytest.TempPathFactory, shared_origin: Origin) -> Iterator[Gateway]:
    """A gateway with schemes of every sort."""
    folder = tmp_path_factory.mktemp("many")
    (folder / "keys.pem").write_bytes(ONE.pem + TWO.pem)
    (folder / "keys.json").write_text(json.dumps({"keys": [THREE.jwk]}))
    gateway = Gateway(
        folder,
        f"""
auth:
  pem: {{jwt: {{audience: api, issuer: "{ISSUER}", keys: keys.pem}}}}
  jwk: {{jwt: {{audience: [api, web], keys: [keys.json], algorithms: [ES256]}}}}
  secret: {{jwt: {{audience: "*", secret: "${{SECRET}}", algorithms: [HS256]}}}}
  cookie: {{jwt: {{audience: api, keys: keys.pem, cookie: session}}}}
  query: {{jwt: {{audience: api, keys: keys.pem, query: ticket}}}}
  several:
    jwt:
      issuers:
        - {{issuer: "https://one.example.com", audience: api, keys: keys.pem}}
        - {{issuer: "https://two.example.com", audience: web, secret: "${{SECRET}}"}}
services: {{origin: {{http: ["http://127.0.0.1:{shared_origin.port}"]}}}}
routes:
  GET /pem: {{call: origin, auth: pem}}
  GET /jwk: {{call: origin, auth: jwk}}
  GET /secret: {{call: origin, auth: secret}}
  GET /cookie: {{call: origin, auth: cookie}}
  GET /query: {{call: origin, auth: query}}
  GET /several: {{call: origin, auth: several}}
""",
        {"SECRET": SECRET},
    )
    yield gateway
    gateway.stop()


@pytest.mark.usefixtures("behind")
@pytest.mark.parametrize(
    ("path", "token", "wanted"),
    [
        ("/pem", ONE.token(), 200),
        ("/pem", TWO.token(), 200),
        ("/pem", THREE.token(), 401),
        ("/jwk", THREE.token(iss=None), 200),
        ("/jwk", THREE.token(aud="web"), 200),
        ("/jwk", ONE.token(), 401),
        ("/secret", compact({"alg": "HS256"}, claims(aud=None), secret_signer(SECRET.encode())), 200),
        ("/secret", compact({"alg": "HS384"}, claims(), secret_signer(SECRET.encode(), "sha384")), 401),
        ("/secret", compact({"alg": "HS256"}, claims(), secret_signer(b"")), 401),
        ("/secret", compact({"alg": "none"}, claims(), lambda _: b""), 401),
        ("/several", ONE.token(iss="https://one.example.com"), 200),
        (
            "/several",
            compact({"alg": "HS256"}, claims(iss="https://two.example.com", aud="web"), secret_signer(SECRET.encode())),
            200,
        ),
        # Each issuer has its own audience and its own keys.
        ("/several", ONE.token(iss="https://one.example.com", aud="web"), 401),
        ("/several", ONE.token(iss="https://two.example.com", aud="web"), 401),
        (
            "/several",
            compact({"alg": "HS256"}, claims(iss="https://one.example.com"), secret_signer(SECRET.encode())),
            401,
        ),
        ("/several", compact({"alg": "HS256"}, claims(iss="https://one.example.com"), secret_signer(ONE.pem)), 401),
        ("/several", ONE.token(iss="https://three.example.com"), 401),
        ("/several", ONE.token(iss=None), 401),
        ("/several", ONE.token(iss=["https://one.example.com"]), 401),
    ],
)
def test_keys_are_those_of_the_issuer(many: Gateway, path: str, token: bytes, wanted: int) -> None:
    assert ask(many, token, path)[0] == wanted


@pytest.mark.usefixtures("behind")
def test_tokens_are_taken_from_where_it_is_said_alone(many: Gateway) -> None:
    good, bad = ONE.token(), THREE.token()
    assert ask(many, good, "/cookie", "Cookie: a=b; session=")[0] == 200
    assert ask(many, bad, "/cookie", "Cookie: session=")[0] == 401
    assert ask(many, good, "/cookie", "Cookie: xsession=")[0] == 401
    assert ask(many, good, "/cookie")[0] == 401
    assert ask(many, b"", f"/query?a=b&ticket={good.decode()}", "X: ")[0] == 200
    assert ask(many, b"", f"/query?ticket={bad.decode()}", "X: ")[0] == 401
    assert ask(many, good, "/query")[0] == 401
    assert ask(many, b"", f"/pem?ticket={good.decode()}", "X: ")[0] == 401


@pytest.mark.usefixtures("behind")
def test_no_token_stands_in_the_log(many: Gateway) -> None:
    token = ONE.token(jti="seen")
    for _ in range(2):
        assert ask(many, b"", f"/query?ticket={token.decode()}", "X: ")[0] == 200
    assert ask(many, token + b"x", "/pem")[0] == 401
    assert ask(many, b"", f"/query?ticket={token.decode()}x", "X: ")[0] == 401
    many.program.wait_until(lambda: "ticket=[redacted]" in many.access_log.read_text(), "the line of the log")
    for text in (many.access_log.read_text(), "\n".join(many.program.lines), many.metrics_text("text/plain")):
        assert token.decode() not in text
        assert token.decode().split(".")[2] not in text
        assert SECRET not in text


def test_keys_in_files_are_read_at_a_reload_and_what_was_remembered_ends(tmp_path: Path, origin: Origin) -> None:
    (tmp_path / "keys.pem").write_bytes(ONE.pem)
    text = config(origin, "keys: keys.pem")
    gateway = Gateway(tmp_path, text)
    try:
        old, new = ONE.token(), TWO.token()
        assert (status(gateway, old), status(gateway, new)) == (200, 401)
        (tmp_path / "keys.pem").write_bytes(TWO.pem)
        gateway.program.send_signal(signal.SIGHUP)
        gateway.program.wait_until(lambda: gateway.workers()[0]["version"] == 2, "the reload")
        assert (status(gateway, old), status(gateway, new)) == (401, 200)
        (tmp_path / "keys.pem").write_bytes(b"-----BEGIN PRIVATE KEY-----\nAAAA\n-----END PRIVATE KEY-----\n")
        gateway.program.send_signal(signal.SIGHUP)
        gateway.program.wait_for_line("holds a private key")
        assert (status(gateway, old), status(gateway, new)) == (401, 200)
    finally:
        gateway.stop()


def test_keys_are_carried_over_a_reload(start: Start, origin: Origin, provider: KeyServer) -> None:
    gateway = start(config(origin, by_jwks(provider)))
    have_keys(gateway)
    token = ONE.token()
    assert status(gateway, token) == 200
    provider.accepts = False
    gateway.rewrite(config(origin, by_jwks(provider), "drain: 5s"))
    gateway.program.send_signal(signal.SIGHUP)
    gateway.program.wait_until(lambda: gateway.workers()[0]["version"] == 2, "the reload")
    assert (status(gateway, token), status(gateway, ONE.token(sub="bob"))) == (200, 200)
    assert provider.fetches == 1
    assert gateway.metrics()['castlegate_jwt_tokens_total{scheme="idp",result="remembered"}'] == 1


# --- the life of keys


def test_a6_without_keys_nobody_is_let_in_or_sent_away_and_it_recovers(
    start: Start, origin: Origin, provider: KeyServer
) -> None:
    provider.accepts = False
    gateway = start(config(origin, by_jwks(provider)))
    gateway.program.wait_for_line("its keys cannot be fetched")
    for token in (ONE.token(), TWO.token()):
        answered, fields, body = ask(gateway, token)
        assert (answered, fields["retry-after"]) == (503, "5")
        assert "www-authenticate" not in fields
        assert json.loads(body)["type"] == "urn:castlegate:unverifiable"
    assert status(gateway, b"nonsense") == 401
    assert gateway.readiness()[0] == 200
    assert origin.seen == []
    provider.accepts = True
    wait_for(gateway, ONE.token(), 200, 5)
    assert len([line for line in gateway.program.lines if "cannot be fetched" in line]) == 1
    gateway.program.wait_for_line("its keys have been fetched")


def test_the_first_requests_wait_for_the_first_keys(start: Start, origin: Origin, provider: KeyServer) -> None:
    provider.go.clear()
    gateway = start(config(origin, by_jwks(provider)))
    with Client(gateway.port) as client:
        send(client, ONE.token())
        gateway.program.wait_until(lambda: bool(provider.seen), "the fetch")
        assert origin.seen == []
        provider.go.set()
        assert client.read_answer()[0] == 200
    assert provider.fetches == 1


def test_a_provider_that_does_not_answer_holds_up_nobody_for_long(
    start: Start, origin: Origin, provider: KeyServer
) -> None:
    provider.go.clear()
    gateway = start(config(origin, by_jwks(provider, "timeout: 300ms")))
    gateway.program.wait_for_line("its keys cannot be fetched")
    began = time.monotonic()
    assert {status(gateway, ONE.token()) for _ in range(20)} == {503}
    assert time.monotonic() - began < 5
    provider.go.set()
    wait_for(gateway, ONE.token(), 200, 5)


@pytest.mark.parametrize("workers", [1, 2])
def test_a7_a_new_key_is_fetched_once_for_all_who_name_it(
    start: Start, origin: Origin, provider: KeyServer, workers: int
) -> None:
    gateway = start(config(origin, by_jwks(provider), f"workers: {workers}"))
    gateway.program.wait_until(lambda: provider.fetches == workers, "every worker to have keys")
    old = ONE.token()
    assert {status(gateway, old) for _ in range(4 * workers)} == {200}
    provider.go.clear()
    provider.keys = [TWO]
    clients = [Client(gateway.port) for _ in range(20)]
    for client in clients:
        send(client, TWO.token())
    gateway.program.wait_until(lambda: provider.fetches > workers, "the fetch")
    gateway.metrics()  # each worker has had its turn
    provider.go.set()
    assert {client.read_answer()[0] for client in clients} == {200}
    for client in clients:
        client.socket.close()
    assert workers < provider.fetches <= 2 * workers
    if workers == 1:
        assert status(gateway, old) == 401, "it was remembered, and its key is there no more"


def test_invented_keys_cost_one_fetch_and_others_nothing(start: Start, origin: Origin, provider: KeyServer) -> None:
    gateway = start(config(origin, by_jwks(provider)))
    have_keys(gateway)
    with Client(gateway.port) as client:
        for number in range(200):
            token = compact({"alg": "ES256", "kid": f"invented-{number}"}, claims(), TWO.sign)
            assert send(client, token).read_answer()[0] == 401
            if number % 20 == 0:
                assert send(client, ONE.token(sub=str(number))).read_answer()[0] == 200
    assert provider.fetches == 2
    assert gateway.metrics()['castlegate_jwt_tokens_total{scheme="idp",result="key"}'] == 200


def test_a_key_that_is_taken_back_ends_what_it_verified(start: Start, origin: Origin, provider: KeyServer) -> None:
    provider.keys = [ONE, TWO]
    provider.fields = "cache-control: max-age=1\r\n"
    gateway = start(config(origin, by_jwks(provider, "at_least: 500ms")))
    have_keys(gateway)
    one, two = ONE.token(), TWO.token()
    assert (status(gateway, one), status(gateway, two)) == (200, 200)
    provider.keys = [TWO]
    wait_for(gateway, one, 401, 5)
    assert status(gateway, two) == 200


def test_keys_outlive_an_outage_up_to_a_bound_and_come_back(start: Start, origin: Origin, provider: KeyServer) -> None:
    gateway = start(config(origin, by_jwks(provider, "refresh: 500ms, at_least: 100ms, at_most: 1s, keep: 3s")))
    have_keys(gateway)
    token = ONE.token()
    provider.accepts = False
    gateway.program.wait_for_line("its keys cannot be fetched")
    assert (status(gateway, token), status(gateway, ONE.token(sub="bob"))) == (200, 200)
    assert status(gateway, TWO.token()) == 503, "it may be a new key that cannot be got now"
    gateway.program.wait_for_line("its keys are too old to be believed", 10)
    assert (status(gateway, token), status(gateway, ONE.token(sub="cem"))) == (503, 503)
    provider.accepts = True
    wait_for(gateway, token, 200, 5)


def several(origin: Origin, schemes: list[str]) -> str:
    """A route /N for each."""
    auth = "".join(f"  s{number}: {{jwt: {{audience: api, {jwt}}}}}\n" for number, jwt in enumerate(schemes))
    routes = "".join(f"  GET /{number}: {{call: origin, auth: s{number}}}\n" for number in range(len(schemes)))
    return f"""
services: {{origin: {{http: ["http://127.0.0.1:{origin.port}"]}}}}
auth:
{auth}
routes:
{routes}
"""


NO_KEYS: list[tuple[str, str, bytes | None, str]] = [
    ("302 Found", "location: {elsewhere}\r\n", None, "redirect"),
    ("308 Permanent Redirect", "location: {elsewhere}\r\n", None, "redirect"),
    ("500 Internal Server Error", "", None, "status"),
    ("203 Non-Authoritative Information", "", None, "status"),
    ("200 OK", "", b"<html>", "malformed"),
    ("200 OK", "", b'{"keys":[],"keys":[]}', "malformed"),
    ("200 OK", "", b"[" * 100_000, "malformed"),
    ("200 OK", "", b" " * 300_000, "bad_answer"),
    ("200 OK", "", b'{"keys":[]}', "ok"),
]


def test_answers_without_keys_let_nobody_in(start: Start, origin: Origin) -> None:
    with ExitStack() as stack:
        elsewhere = stack.enter_context(KeyServer(ONE))
        servers = [stack.enter_context(KeyServer(ONE)) for _ in NO_KEYS]
        for server, (answered, fields, body, _) in zip(servers, NO_KEYS, strict=True):
            server.status, server.fields, server.body = answered, fields.format(elsewhere=elsewhere.url), body
        gateway = start(several(origin, [f'jwks: "{server.url}/jwks"' for server in servers]))
        for number, (server, (*_, result)) in enumerate(zip(servers, NO_KEYS, strict=True)):
            sample = f'castlegate_jwks_fetches_total{{issuer="{server.url}/jwks",result="{result}"}}'
            gateway.program.wait_until(lambda sample=sample: gateway.metrics().get(sample, 0) >= 1, sample)
            assert ask(gateway, ONE.token(), f"/{number}")[0] == 503
        assert elsewhere.connections == 0


def test_keys_come_over_tls_from_who_can_prove_who_it_is(
    tmp_path: Path, start: Start, origin: Origin, provider: KeyServer
) -> None:
    authority = Authority(tmp_path)
    provider.tls = serving(authority.issue("idp", hosts=("localhost",)))
    url = f"https://localhost:{provider.port}/jwks"
    trusting = f'issuer: trusted, jwks: "{url}", fetch: {{tls: {{ca: {authority.file}}}}}'
    gateway = start(several(origin, [trusting, f'issuer: distrusted, jwks: "{url}"']))
    assert ask(gateway, ONE.token(iss="trusted"), "/0")[0] == 200
    gateway.program.wait_for_line("issuer distrusted: its keys cannot be fetched")
    assert ask(gateway, ONE.token(iss="distrusted"), "/1")[0] == 503
    assert provider.fetches == 1


def test_authorities_are_replaced_without_a_restart(
    tmp_path: Path, start: Start, origin: Origin, provider: KeyServer
) -> None:
    old, new = Authority(tmp_path, "old"), Authority(tmp_path, "new")
    provider.tls = serving(new.issue("idp", hosts=("localhost",)))
    url = f"https://localhost:{provider.port}/jwks"
    gateway = start(config(origin, f'jwks: "{url}", fetch: {{tls: {{ca: {old.file}, watch: 100ms}}}}'))
    gateway.program.wait_for_line("WARNING castlegate.services: auth.idp.jwt.fetch.tls: no TLS with localhost:")
    assert ask(gateway, ONE.token())[0] == 503
    new.file.replace(old.file)
    gateway.program.wait_for_line("new certificates of 'auth.idp.jwt.fetch.tls' are used")
    wait_for(gateway, ONE.token(), 200, 10)


def test_keys_are_where_the_issuer_says(start: Start, origin: Origin, provider: KeyServer) -> None:
    with KeyServer(ONE) as keys:
        issuer = f"{provider.url}/realms/shop"
        provider.discovery = json.dumps({"issuer": issuer, "jwks_uri": f"{keys.url}/certs"}).encode()
        gateway = start(config(origin, f'issuer: "{issuer}"'))
        assert status(gateway, ONE.token(iss=issuer)) == 200
        assert provider.seen[0].startswith(b"GET /realms/shop/.well-known/openid-configuration HTTP/1.1\r\n")
        assert keys.seen[0].startswith(b"GET /certs HTTP/1.1\r\n")


NO_DISCOVERY: list[object] = [
    {"issuer": "https://evil.example.com", "jwks_uri": "{keys}"},
    {"issuer": "{issuer}/", "jwks_uri": "{keys}"},
    {"issuer": "{issuer}"},
    {"issuer": "{issuer}", "jwks_uri": "file:///etc/passwd"},
    {"issuer": "{issuer}", "jwks_uri": "http://192.0.2.1/keys"},
    {"issuer": "{issuer}", "jwks_uri": ["{keys}"]},
    ["{issuer}"],
]


def test_another_issuers_discovery_document_is_not_believed(start: Start, origin: Origin) -> None:
    with ExitStack() as stack:
        keys = stack.enter_context(KeyServer(ONE))
        servers = [stack.enter_context(KeyServer(ONE)) for _ in NO_DISCOVERY]
        for server, document in zip(servers, NO_DISCOVERY, strict=True):
            text = json.dumps(document).replace("{issuer}", server.url).replace("{keys}", keys.url)
            server.discovery = text.encode()
        gateway = start(several(origin, [f'issuer: "{server.url}"' for server in servers]))
        for number, server in enumerate(servers):
            gateway.program.wait_for_line(f"{server.url}: its keys cannot be fetched: its discovery document")
            assert ask(gateway, ONE.token(iss=server.url), f"/{number}")[0] == 503
        assert keys.connections == 0

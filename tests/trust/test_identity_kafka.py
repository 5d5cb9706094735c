"""What services behind Kafka are told of who calls, in each dialect, and that no client can say it in their place."""

import json
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat, PublicFormat
from joserfc import jwt
from joserfc.jwk import ECKey
from tests.conftest import Broker
from tests.testbeds.gateway import Gateway
from tests.testbeds.services import Service, start_plain
from tests.testbeds.wire import Client

CONFIG = """
auth:
  keys: {keys: {file: partners.keys}}
identity:
  headers: {X-User-Id: "{principal.subject}", x-user-scopes: "{principal.scopes?}", x-user-name: "{claims.name?}"}
  token: {key: identity.pem}
services:
  nest: {kafka: {dialect: nest, forward_headers: [x-tenant]}}
  spring: {kafka: spring}
  fs: {kafka: faststream}
  plain: {kafka: {dialect: plain, forward_headers: [x-tenant]}}
  items: {kafka: {dialect: zilla, forward_headers: [content-type, x-tenant], operations: {put: {topic: zilla.identity}}}}
  quiet: {kafka: {dialect: nest, operations: {echo: {topic: nest.echo}}}, identity: none}
defaults: {auth: keys, timeout: 10s}
routes:
  POST /nest: {call: nest.echo}
  POST /spring: {call: spring.echo}
  POST /fs: {call: fs.echo}
  POST /plain: {call: plain.script}
  POST /zilla: {call: items.put}
  POST /quiet: {call: quiet.echo, public: true}
  POST /open: {call: nest.echo, public: true}
"""
ZILLA = {
    "CORRELATION_HEADER": "zilla:correlation-id", "REPLY_TOPIC_HEADER": "zilla:reply-to", "TOPICS": "zilla.identity",
}  # fmt: skip
FORGED = "X-User-Id: root\r\nx_user_id: root\r\nX-User-Scopes: root\r\nx-identity-token: root\r\nX-Tenant: acme\r\n"


class Rig:
    """A gateway in front of a service of each dialect."""

    def __init__(self, broker: Broker, folder: Path) -> None:
        private = ec.generate_private_key(ec.SECP256R1())
        public = private.public_key().public_bytes(Encoding.PEM, PublicFormat.SubjectPublicKeyInfo)
        (folder / "identity.pem").write_bytes(private.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption()))
        self.public = ECKey.import_key(public)
        command = [sys.executable, "-m", "castlegate.cli.main", "key", "new", "partners.keys", "--owner", "ann"]
        command += ["--scope", "orders:read", "--claim", "name=Žofie"]
        done = subprocess.run(command, cwd=folder, capture_output=True, text=True, timeout=30, check=True)
        self.key = done.stdout.strip()
        self.gateway = Gateway(folder, f'kafka: "{broker.bootstrap}"\n{CONFIG}')

    def ask(self, path: str, body: Any, fields: str = "") -> tuple[int, dict[str, str], Any]:
        content = json.dumps(body).encode()
        head = f"POST {path} HTTP/1.1\r\nHost: h\r\nX-API-Key: {self.key}\r\nContent-Length: {len(content)}\r\n{fields}\r\n"
        with Client(self.gateway.port, timeout_s=20) as client:
            status, answered, said = client.send(head.encode() + content).read_answer()
            return status, answered, json.loads(said)


@pytest.fixture(scope="module")
def rig(
    broker: Broker,
    nest_service: Service,
    spring_service: Service,
    faststream_service: Service,
    plain_service: Service,
    tmp_path_factory: pytest.TempPathFactory,
) -> Iterator[Rig]:
    del nest_service, spring_service, faststream_service, plain_service
    folder = tmp_path_factory.mktemp("identity")
    zilla = start_plain(broker.bootstrap, folder, ZILLA)
    rig = Rig(broker, folder)
    rig.gateway.program.wait_until(lambda: rig.gateway.readiness()[0] == 200, "readiness")
    yield rig
    zilla.program.terminate()
    rig.gateway.stop()


def told(headers: dict[str, Any]) -> dict[str, Any]:
    return {
        name: value for name, value in headers.items() if name.lower().startswith(("x-user", "x_user", "x-identity"))
    }


@pytest.mark.parametrize("path", ["/nest", "/spring", "/fs", "/plain", "/zilla"])
def test_a_service_of_each_dialect_is_told_who_calls(rig: Rig, path: str) -> None:
    status, fields, seen = rig.ask(path, {"a": 1}, FORGED)
    assert status == 200
    headers = seen["headers"]
    said = told(headers)
    claims = jwt.decode(said.pop("x-identity-token"), rig.public, algorithms=["ES256"]).claims
    service = {"/zilla": "items"}.get(path, path[1:])
    assert (claims["sub"], claims["aud"], claims["scope"]) == ("ann", service, "orders:read")
    assert said == {"x-user-id": "ann", "x-user-scopes": "orders:read", "x-user-name": "Žofie"}
    assert {"traceparent", "x-request-id", "x-deadline-ms"} <= headers.keys()
    assert headers.get("x-tenant") == ("acme" if path in ("/nest", "/plain", "/zilla") else None)
    assert not told(fields)


@pytest.mark.parametrize("path", ["/quiet", "/open"])
def test_where_nothing_is_told_a_client_cannot_say_it(rig: Rig, path: str) -> None:
    status, _, seen = rig.ask(path, {"a": 1}, FORGED)
    assert status == 200
    assert not told(seen["headers"])
    assert "root" not in json.dumps(seen)

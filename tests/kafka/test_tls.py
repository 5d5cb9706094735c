"""A broker that speaks TLS and asks who is there, from the client's socket through the real program."""

import json
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple

import pytest
from confluent_kafka.admin import (  # type: ignore[attr-defined]  # exported, not declared
    AdminClient,
    ScramCredentialInfo,
    ScramMechanism,
    UserScramCredentialUpsertion,
)
from tests.kafka.test_routes import ask
from tests.testbeds.certificates import Authority
from tests.testbeds.gateway import Gateway
from tests.testbeds.kafka import RealKafka
from tests.testbeds.services import start_plain

from castlegate.config.report import ConfigError
from castlegate.document import load

PASSWORD, WRONG = "correct-horse-battery", "wrong-horse-battery"
LOGIN = "org.apache.kafka.common.security"


class Secured(NamedTuple):
    """A broker with listeners SSL (asks for certificates) and SASL_SSL (for passwords), and who vouches for it."""

    kafka: RealKafka
    authority: Authority

    def config(self, protocol: str, **settings: str) -> str:
        given = {"security.protocol": protocol, "ssl.ca.location": str(self.authority.file)}
        given |= {name.replace("_", "."): value for name, value in settings.items()}
        kafka = {"bootstrap": f"127.0.0.1:{self.kafka.ports[protocol]}", "librdkafka": given}
        return f"""
kafka: {json.dumps(kafka)}
services: {{plain: {{kafka: plain}}}}
routes: {{"POST /say": {{call: plain.script, public: true, timeout: 5s}}}}
"""


@pytest.fixture(scope="module")
def secured_kafka(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Secured]:
    folder = tmp_path_factory.mktemp("secured")
    authority = Authority(folder)
    pair = authority.issue("broker")
    store = folder / "broker.pem"
    store.write_bytes(pair.key.read_bytes() + pair.cert.read_bytes())
    kafka = RealKafka(
        {
            "ssl.keystore.type": "PEM", "ssl.keystore.location": str(store),
            "ssl.truststore.type": "PEM", "ssl.truststore.location": str(authority.file),
            "listener.name.ssl.ssl.client.auth": "required",
            "sasl.enabled.mechanisms": "PLAIN,SCRAM-SHA-512",
            "listener.name.sasl_ssl.scram-sha-512.sasl.jaas.config": f"{LOGIN}.scram.ScramLoginModule required;",
            "listener.name.sasl_ssl.plain.sasl.jaas.config":
                f'{LOGIN}.plain.PlainLoginModule required user_gateway="{PASSWORD}";',
        },
        listeners=["SSL", "SASL_SSL"],
        log=folder / "broker.log",
    )  # fmt: skip
    try:
        admin = AdminClient({"bootstrap.servers": kafka.bootstrap, "log_level": 0})
        secret = ScramCredentialInfo(ScramMechanism.SCRAM_SHA_512, 4096)
        wanted = [UserScramCredentialUpsertion("gateway", secret, PASSWORD.encode())]
        for done in admin.alter_user_scram_credentials(wanted).values():
            done.result()
        del admin
        service = start_plain(kafka.bootstrap, folder)
        yield Secured(kafka, authority)
        service.program.terminate()
    finally:
        kafka.discard()


@pytest.fixture
def start(tmp_path: Path) -> Iterator[Any]:
    running: list[Gateway] = []

    def start(config: str) -> Gateway:
        running.append(Gateway(tmp_path, config))
        return running[-1]

    yield start
    for gateway in running:
        gateway.stop()


def served(gateway: Gateway) -> None:
    """A request goes through the broker to the service, and its reply back."""
    gateway.program.wait_until(lambda: gateway.readiness()[1]["status"] == "ready", "readiness")
    assert ask(gateway.port, "POST", "/say", {"replies": [{"value": {"n": 7}}]}) == (200, {"n": 7})
    unheard(gateway)


def unheard(gateway: Gateway) -> None:
    """No password stands in anything that the program says."""
    said = "\n".join([*gateway.program.lines, json.dumps(gateway.readiness()), "\n".join(gateway.metrics())])
    assert PASSWORD not in said
    assert WRONG not in said


@pytest.mark.parametrize("mechanism", ["SCRAM-SHA-512", "PLAIN"])
def test_a_password_from_the_environment_or_a_file_opens_the_broker(
    secured_kafka: Secured, start: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, mechanism: str
) -> None:
    monkeypatch.setenv("KAFKA_PASSWORD", PASSWORD)
    (tmp_path / "password").write_text(f"{PASSWORD}\n")
    for written in ("${KAFKA_PASSWORD}", "${file:password}"):
        config = secured_kafka.config(
            "SASL_SSL", sasl_mechanism=mechanism, sasl_username="gateway", sasl_password=written
        )
        served(start(config))


def test_a_certificate_opens_the_broker(secured_kafka: Secured, start: Any) -> None:
    own = secured_kafka.authority.issue("gateway")
    served(start(secured_kafka.config("SSL", ssl_certificate_location=str(own.cert), ssl_key_location=str(own.key))))


def not_ready(gateway: Gateway, reason: str) -> None:
    """Not ready for a reason that readiness and the log tell, requests are refused, and no password is told."""

    def told() -> bool:
        return re.search(reason, gateway.readiness()[1]["reason"]) is not None

    gateway.program.wait_until(told, f"the reason {reason!r}")
    assert gateway.readiness()[0] == 503
    status, problem = ask(gateway.port, "POST", "/say", {"n": 7})
    assert (status, problem["outcome"]) == (503, "not_sent")
    assert re.search(reason, str(problem)) is None
    gateway.program.wait_for_line(f"WARNING castlegate.kafka: kafka brokers do not answer: .*{reason}")
    unheard(gateway)


@pytest.mark.parametrize("debug", [{}, {"debug": "all"}])
def test_a_wrong_password_is_told_and_not_shown(
    secured_kafka: Secured, start: Any, monkeypatch: pytest.MonkeyPatch, debug: dict[str, str]
) -> None:
    monkeypatch.setenv("KAFKA_PASSWORD", WRONG)
    gateway = start(
        secured_kafka.config(
            "SASL_SSL",
            sasl_mechanism="SCRAM-SHA-512",
            sasl_username="gateway",
            sasl_password="${KAFKA_PASSWORD}",
            **debug,
        )
    )
    not_ready(gateway, "invalid credentials")


def test_a_broker_that_nobody_vouches_for_is_told(secured_kafka: Secured, start: Any, tmp_path: Path) -> None:
    alien = Authority(tmp_path, "elsewhere")
    config = secured_kafka.config(
        "SASL_SSL",
        sasl_mechanism="PLAIN",
        sasl_username="gateway",
        sasl_password=PASSWORD,
        ssl_ca_location=str(alien.file),
    )
    not_ready(start(config), "certificate verify failed")


def test_a_certificate_that_is_missing_is_told(secured_kafka: Secured, start: Any) -> None:
    # The brokers' Java says the one up to 17.0.15, and the other in later updates.
    not_ready(start(secured_kafka.config("SSL")), "alert (bad certificate|certificate required)")


def test_settings_that_do_not_go_together_are_mistakes(tmp_path: Path) -> None:
    config = tmp_path / "gateway.yaml"
    for settings, expected in {
        "security.protocol: SSL, ssl.ca.location: /none.pem": "ssl.ca.location failed",
        'security.protocol: SASL_SSL, sasl.mechanism: SCRAM, sasl.password: "${P}"': "Unsupported SASL mechanism: SCRAM",
        'security.protocol: SSL, ssl.key.pem: "${P}"': "ssl.key.pem failed",
    }.items():
        config.write_text(
            f'kafka: {{bootstrap: "a:1", librdkafka: {{{settings}}}}}\n'
            "services: {s: {kafka: plain}}\nroutes: {GET /: {call: s.x, public: true}}\n"
        )
        with pytest.raises(ConfigError) as raised:
            load(config, {"P": PASSWORD})
        assert str(raised.value).startswith(f"{config}:1:27: 'kafka.librdkafka': librdkafka does not take it: ")
        assert expected in str(raised.value)
        assert PASSWORD not in str(raised.value)

"""The metrics that dashboards and alerts are made of: names, kinds, labels and what they mean, in `metrics.txt`.

`GOLDEN=write pytest tests/golden` writes it anew; a name that is gone breaks somebody's alerts.
"""

import json
import os
import re
from base64 import urlsafe_b64encode
from pathlib import Path

from tests.testbeds.embedded import EmbeddedBroker
from tests.testbeds.gateway import Gateway
from tests.testbeds.processes import free_port
from tests.testbeds.topics import create_topics
from tests.testbeds.wire import Client, Origin

FILE = Path(__file__).parent / "metrics.txt"
CONFIG = """
state: state
limit_store: {{store: redis, url: "redis://127.0.0.1:{nobody}"}}
kafka: {{bootstrap: "{bootstrap}", max_record: 1000B}}
auth:
  keys: {{keys: golden.keys}}
  team: {{authorizer: {{call: origin, post: /verify}}}}
  idp: {{jwt: {{issuer: golden, audience: golden, jwks: "http://127.0.0.1:{port}/keys", fetch: {{allow_http: true}}}}}}
policies: {{open: method == 'GET'}}
services:
  origin: {{http: ["http://127.0.0.1:{port}"], breaker: {{}}, concurrency: adaptive, hedge: {{}}}}
  golden: {{kafka: {{dialect: plain, group: golden}}}}
  found: {{http: {{file: golden.json}}, health: tcp}}
defaults: {{public: true, timeout: 300ms}}
routes:
  GET /x: {{call: origin, policy: open}}
  POST /closed: {{call: origin, policy: open}}
  GET /limited: {{call: origin, limit: 1/day, quota: {{daily: 10, per: address}}, concurrency: 10}}
  GET /own: {{call: origin, public: false, auth: idp}}
  POST /asked: {{call: golden.asked}}
  POST /stored: {{publish: golden.stored}}
"""
# A token of the right form, of which no key is known.
TOKEN = b".".join(
    urlsafe_b64encode(json.dumps(part).encode()).rstrip(b"=")
    for part in ({"alg": "RS256", "kid": "1"}, {"iss": "golden", "aud": "golden", "exp": 4e9}, "signature")
)
FIELDS = b"Content-Length: 2\r\nConnection: close\r\nAuthorization: Bearer %b\r\n" % TOKEN


def test_the_metrics_are_those_of_the_golden_file(tmp_path: Path, embedded_broker: EmbeddedBroker) -> None:
    create_topics(embedded_broker.bootstrap, {"golden.asked": 1, "golden.stored": 1})
    (tmp_path / "golden.keys").touch()
    with Origin() as origin:
        (tmp_path / "golden.json").write_text(json.dumps([f"http://127.0.0.1:{origin.port}"]))
        text = CONFIG.format(bootstrap=embedded_broker.bootstrap, port=origin.port, nobody=free_port())
        gateway = Gateway(tmp_path, text)
        gateway.program.wait_until(lambda: gateway.readiness()[1]["status"] == "ready", "readiness")
        for line, status in (
            (b"GET /x", 200), (b"GET /none", 404), (b"POST /asked", 504), (b"POST /stored", 202),
            (b"POST /closed", 403), (b"GET /limited", 200), (b"GET /limited", 429), (b"GET /own", 503),
        ):  # fmt: skip
            with Client(gateway.port) as client:
                head = line + b" HTTP/1.1\r\nHost: h\r\n" + FIELDS + b"\r\n{}"
                assert client.send(head).read_answer()[0] == status
        told = described(gateway.metrics_text("text/plain"))
        gateway.stop()
    if os.environ.get("GOLDEN") == "write":
        FILE.write_text(told, encoding="utf-8")
    assert told == FILE.read_text(encoding="utf-8")


def described(text: str) -> str:
    """Each family: name with its labels, kind, and what it means."""
    lines = []
    for name, meaning, kind in re.findall(r"^# HELP (\S+) (.*)\n# TYPE \S+ (\S+)", text, re.MULTILINE):
        samples = re.findall(rf"^{name}(?:_bucket)?\{{(.*)\}} ", text, re.MULTILINE)
        labels = dict.fromkeys(label for sample in samples for label in re.findall(r'(\w+)="', sample))
        lines.append(f"{kind:<9} {name}{{{', '.join(label for label in labels if label != 'le')}}}: {meaning}\n")
    return "".join(lines).replace("{}", "")

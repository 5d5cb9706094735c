"""The metrics that dashboards and alerts are made of: names, kinds, labels and what they mean, in `metrics.txt`.

`GOLDEN=write pytest tests/golden` writes it anew; a name that is gone breaks somebody's alerts.
"""

import os
import re
from pathlib import Path

from tests.testbeds.embedded import EmbeddedBroker
from tests.testbeds.gateway import Gateway
from tests.testbeds.topics import create_topics
from tests.testbeds.wire import Client, Origin

FILE = Path(__file__).parent / "metrics.txt"
CONFIG = """
kafka: {{bootstrap: "{bootstrap}", max_record: 1000B}}
auth:
  keys: {{keys: golden.keys}}
  team: {{authorizer: {{call: origin, post: /verify}}}}
policies: {{open: method == 'GET'}}
services:
  origin: {{http: ["http://127.0.0.1:{port}"]}}
  golden: {{kafka: plain}}
defaults: {{public: true, timeout: 300ms}}
routes:
  GET /x: {{call: origin, policy: open}}
  POST /asked: {{call: golden.asked}}
  POST /stored: {{publish: golden.stored}}
"""


def test_the_metrics_are_those_of_the_golden_file(tmp_path: Path, embedded_broker: EmbeddedBroker) -> None:
    create_topics(embedded_broker.bootstrap, {"golden.asked": 1, "golden.stored": 1})
    (tmp_path / "golden.keys").touch()
    with Origin() as origin:
        gateway = Gateway(tmp_path, CONFIG.format(bootstrap=embedded_broker.bootstrap, port=origin.port))
        gateway.program.wait_until(lambda: gateway.readiness()[1]["status"] == "ready", "readiness")
        for line, status in (
            (b"GET /x", 200), (b"GET /none", 404), (b"POST /asked", 504), (b"POST /stored", 202),
        ):  # fmt: skip
            with Client(gateway.port) as client:
                head = line + b" HTTP/1.1\r\nHost: h\r\nContent-Length: 2\r\nConnection: close\r\n\r\n{}"
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

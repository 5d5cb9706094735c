"""`castlegate explain` tells of each request what the edge then does with it."""

from pathlib import Path

from tests.testbeds.certificates import Authority
from tests.testbeds.gateway import Gateway
from tests.testbeds.wire import Client, Origin

from castlegate.explain import Refusal, explain

CONFIG = """
services: {{origin: {{http: ["http://127.0.0.1:{port}"]}}}}
defaults: {{public: true}}
routes:
  GET /items/{{id}}: {{call: origin}}
  DELETE /items/{{id}}: {{call: origin}}
  ANY /api/{{rest...}}: {{call: origin}}
  GET /api/admin/keys: {{call: origin}}
  GET shop.example.com/x: {{call: origin}}
"""


CASES: list[tuple[str, str, str, tuple[str, ...], int]] = [
    ("GET", "/items/1", "h", (), 200),
    ("HEAD", "/items/1", "h", (), 200),
    ("GET", "http://shop.example.com/x", "h", (), 200),
    ("GET", "/x", "h", (), 404),
    ("PUT", "/items/1", "h", (), 405),
    ("BREW", "/items/1", "h", (), 501),
    ("GET", "/items/..%2f", "h", (), 400),
    ("GET", "/api/admin%2Fkeys", "h", (), 400),
    ("GET", "/api/%2561dmin", "h", (), 200),
    ("GET", "items", "h", (), 400),
    ("GET", "/items/1", "h h", (), 400),
    ("GET", "/items/1", "h", ("Transfer-Encoding: gzip",), 400),
    ("OPTIONS", "*", "h", (), 204),
    ("OPTIONS", "/items/1", "h", (), 204),
    ("OPTIONS", "/items/1", "h", ("Access-Control-Request-Method: DELETE",), 204),
    ("OPTIONS", "/items/1", "h", ("Access-Control-Request-Method: PUT",), 405),
    ("OPTIONS", "/x", "h", ("Access-Control-Request-Method: GET",), 404),
    ("OPTIONS", "/api/x", "h", ("Access-Control-Request-Method: GET",), 200),
]


def test_what_is_told_is_what_the_edge_answers(tmp_path: Path) -> None:
    with Origin() as origin:
        gateway = Gateway(tmp_path, CONFIG.format(port=origin.port))
        for method, target, host, fields, status in CASES:
            told = explain(gateway.path, method, target, host, fields).refusal or Refusal(200, "")
            head = "".join(f"{line}\r\n" for line in (f"{method} {target} HTTP/1.1", f"Host: {host}", *fields, ""))
            with Client(gateway.port) as client:
                answered, sent, _ = client.send(head.encode()).read_answer(bodiless=method == "HEAD")
            allow = sent.get("allow", "")
            assert (told.status, told.allow, status) == (answered, allow, answered), f"{method} {target} {fields}"
        gateway.stop()


def test_a_service_is_told_by_which_scheme_the_client_came(tmp_path: Path) -> None:
    pair = Authority(tmp_path).issue("gw.example")
    path = tmp_path / "gateway.yaml"
    listen = f"listen: {{tls: {{cert: {pair.cert}, key: {pair.key}}}}}\n"
    path.write_text(listen + CONFIG.format(port=1))
    assert "x-forwarded-proto: https" in explain(path, "GET", "/items/1", "h").chain[-1].says["fields"]

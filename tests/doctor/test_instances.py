"""`castlegate doctor` on instances that are found elsewhere, and on health checks."""

from pathlib import Path

from tests.doctor.test_doctor import diagnose
from tests.testbeds.names import NameServer
from tests.testbeds.processes import free_port
from tests.testbeds.wire import Origin, answer

CONFIG = """
listen: 127.0.0.1:0
admin: 127.0.0.1:0
access_log: off
services: {{users: {{http: {http}, health: /healthz}}}}
defaults: {{public: true}}
routes: {{GET /users: {{call: users}}}}
"""


def test_instances_that_are_found_are_reached_and_asked(tmp_path: Path) -> None:
    port = free_port()
    with (
        NameServer() as names,
        Origin(address=("127.0.0.1", port)),
        Origin(answer(b"HTTP/1.1 503 X\r\ncontent-length: 0\r\n\r\n"), address=("127.0.0.2", port)),
    ):
        names.say("users.test", "A", "127.0.0.1", "127.0.0.2")
        http = f'{{dns: {{name: "users.test:{port}", server: "127.0.0.1:{names.port}"}}}}'
        found = diagnose(tmp_path, CONFIG.format(http=http))
    assert found.of(f"service users: DNS name users.test:{port}")["says"] == "2 instances"
    well = found.of(f"service users: http://127.0.0.1:{port}")
    assert (well["verdict"], "its health check passes" in well["says"]) == ("well", True)
    [wrong] = found.wrong
    assert wrong == f"service users: http://127.0.0.2:{port}"
    assert "its health check fails: its status was 503" in found.wrong[wrong]


def test_a_name_that_is_not_there_is_wrong(tmp_path: Path) -> None:
    with NameServer() as names:
        http = f'{{srv: {{name: _http._tcp.users.test, server: "127.0.0.1:{names.port}"}}}}'
        found = diagnose(tmp_path, CONFIG.format(http=http))
    assert "there is no such name" in found.wrong["service users: DNS service _http._tcp.users.test"]


def test_a_file_that_cannot_be_used_is_wrong_with_its_place(tmp_path: Path) -> None:
    (tmp_path / "users.yaml").write_text("- users:8000\n")
    found = diagnose(tmp_path, CONFIG.format(http="{file: users.yaml}"))
    assert "users.yaml:1:3" in found.wrong["service users: file users.yaml"]

"""Parts that are Python functions, beside calls of services."""

from pathlib import Path

from tests.compose.conftest import Services, Start, ask

CODE = """


async def greet() -> dict[str, str]:
    return {"text": "Hello"}


async def fail() -> None:
    raise RuntimeError("not today")
"""


def test_a_function_is_a_part_like_any_other(services: Services, start: Start, tmp_path: Path) -> None:
    (tmp_path / "parts_of_a_page.py").write_text(CODE)
    services.says("/x", 1)
    gateway = start("""
  GET /a:
    compose:
      greeting: {call: "python:parts_of_a_page:greet"}
      x: {call: s, get: "/x?t={greeting.text}"}
      bad: {call: "python:parts_of_a_page:fail", optional: true}
""")
    answer = ask(gateway, "/a")
    assert (answer.status, answer.json) == (200, {"greeting": {"text": "Hello"}, "x": 1, "bad": None})
    assert answer.parts == {"greeting": "ok", "x": "ok", "bad": "error"}
    assert services.asked("/x")[0].startswith(b"GET /x?t=Hello ")

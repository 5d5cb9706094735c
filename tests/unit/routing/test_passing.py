"""Ways past routes that ask who calls."""

import pytest

from castlegate.config.report import Report
from castlegate.routing.passing import Entry, ways_past
from castlegate.routing.template import parse_key


def entry(text: str) -> Entry:
    """`open ANY /x` or `shut GET /x`; behind `@` where it leads."""
    text, _, leads = text.partition("@")
    access, _, name = text.partition(" ")
    key = parse_key(name, Report().place())
    assert key is not None
    return Entry(name, key, access == "open", leads or None)


@pytest.mark.parametrize(
    ("routes", "ways"),
    [
        (["shut GET /a@s", "open ANY /{rest...}@s"], ["GET /a: POST PUT PATCH DELETE by ANY /{rest...}"]),
        (["shut POST /a/{id}@s", "shut GET /a/{id}@s", "open ANY /a/{rest...}@s"], [
            "POST /a/{id}: PUT PATCH DELETE by ANY /a/{rest...}", "GET /a/{id}: PUT PATCH DELETE by ANY /a/{rest...}",
        ]),
        (["shut ANY /a%21@s", "open ANY h/{rest...}@s"], ["ANY /a%21: GET HEAD POST PUT PATCH DELETE by ANY h/{rest...}"]),
        (["shut GET /a@s", "open GET h/{rest...}@s"], ["GET /a: GET HEAD by GET h/{rest...}"]),
        # Another service, a path of its own, or shut by another route.
        (["shut GET /a@s", "open ANY /{rest...}@t"], []),
        (["shut GET /a@s", "open ANY /{rest...}"], []),
        (["shut GET /a", "open ANY /{rest...}"], []),
        (["shut GET /a@s", "shut ANY /a@s", "open ANY /{rest...}@s"], []),
        (["shut ANY /a/{rest...}@s", "open ANY /{rest...}@s"], []),
        (["shut GET h/a@s", "open ANY g/{rest...}@s"], []),
        # Meant: one method, or the very same path.
        (["shut POST /a@s", "open GET /{rest...}@s"], []),
        (["shut POST /a@s", "open ANY /a@s"], []),
        (["shut GET /a@s", "open GET h/a@s"], []),
    ],
)  # fmt: skip
def test_what_most_likely_is_not_meant_is_found(routes: list[str], ways: list[str]) -> None:
    found = ways_past([entry(text) for text in routes])
    assert [f"{way.shut.name}: {' '.join(way.methods)} by {way.opened.name}" for way in found] == ways

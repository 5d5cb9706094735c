"""How long keys may be used, and where they may come from."""

import pytest

from castlegate.config.addresses import parse_url
from castlegate.headers import Headers
from castlegate.schemes.key_fetching import KeyFetching, lifetime, may_be_asked

SETTINGS = KeyFetching(refresh=300.0, at_least=60.0, at_most=3600.0)


@pytest.mark.parametrize(
    ("fields", "seconds"),
    [
        ({}, 300),
        ({"cache-control": "public, max-age=600"}, 600),
        ({"cache-control": "MAX-AGE=600, must-revalidate"}, 600),
        ({"cache-control": 'max-age="600"'}, 600),
        ({"cache-control": "s-maxage=600"}, 300),
        ({"cache-control": "x-max-age=600"}, 300),
        ({"cache-control": "public"}, 300),
        ({"cache-control": "max-age=0"}, 60),
        ({"cache-control": "no-store"}, 60),
        ({"cache-control": "no-cache, max-age=600"}, 60),
        ({"cache-control": "max-age=86400"}, 3600),
        ({"cache-control": "max-age=600", "age": "100"}, 500),
        ({"cache-control": "max-age=600", "age": "10000"}, 60),
        ({"cache-control": "max-age=600", "age": "soon"}, 600),
        ({"cache-control": "max-age=-1"}, 300),
        ({"cache-control": "max-age=99999999999999999999"}, 3600),
    ],
)
def test_the_provider_says_how_long_within_bounds(fields: dict[str, str], seconds: float) -> None:
    headers = Headers.of([(name.encode(), value.encode()) for name, value in fields.items()])
    assert lifetime(headers, SETTINGS) == seconds


@pytest.mark.parametrize(
    ("address", "vouched_by", "allowed"),
    [
        ("https://idp.example.com/keys", "", True),
        ("http://idp.example.com/keys", "", False),
        ("http://127.0.0.1:8080/keys", "", True),
        ("http://localhost/keys", "", True),
        ("http://[::1]/keys", "", True),
        ("http://localhost.example.com/keys", "", False),
        ("http://127.0.0.1:8080/keys", "https://idp.example.com", False),
        ("http://127.0.0.1:8080/keys", "http://127.0.0.1:8080", True),
        ("https://keys.example.com/keys", "https://idp.example.com", True),
    ],
)
def test_keys_come_over_tls_or_from_this_machine(address: str, vouched_by: str, allowed: bool) -> None:
    assert may_be_asked(parse_url(address), SETTINGS, vouched_by) is allowed


def test_plain_http_may_be_allowed() -> None:
    assert may_be_asked(parse_url("http://idp.example.com"), KeyFetching(allow_http=True))

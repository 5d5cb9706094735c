"""Which scheme speaks for a request, and what is answered where none does."""

from __future__ import annotations

import asyncio
import math

import msgspec
import pytest

from castlegate.errors import Kinds
from castlegate.headers import Headers
from castlegate.message import Request, Response
from castlegate.policies.authenticate import Authenticate
from castlegate.principal import Principal
from castlegate.schemes.scheme import Unauthenticated
from castlegate.telemetry.trace import Trace

ANN = Principal(subject="ann", scheme="tokens")


class FieldScheme:
    """Accepts `good` in a field of the request; `new` after a while, `later` not now."""

    ambient = False
    carrier = None
    credential = "token"

    def __init__(self, field: bytes) -> None:
        self.field = field
        self.challenge = f'Bearer realm="{field.decode()}"'
        self.verified = 0

    def take(self, request: Request) -> bytes | None:
        return request.headers.get(self.field)

    def known(self, credential: bytes) -> Principal | None:
        return ANN if credential == b"good" else None

    async def verify(self, credential: bytes, request: Request) -> Principal:
        self.verified += 1
        await asyncio.sleep(0)
        if credential == b"new":
            return ANN
        if credential == b"later":
            raise Unauthenticated("There are no keys yet.", kind=Kinds.UNVERIFIABLE)
        raise Unauthenticated("The token has expired.")


async def answer(request: Request) -> Response:
    assert request.principal is not None
    return Response(200, body=request.principal.subject.encode())


async def ask(schemes: list[FieldScheme], **fields: bytes) -> Response:
    headers = Headers.of([(name.encode(), value) for name, value in fields.items()])
    request = Request(b"1", Trace(b"", None), "-", b"http", b"x", b"GET", b"/", b"", headers, b"", math.inf)
    policy = Authenticate({scheme.field.decode(): scheme for scheme in schemes})
    return await policy.wrap(answer)(request)


def challenges(response: Response) -> list[bytes]:
    return response.headers.get_all(b"www-authenticate")


async def test_a_credential_that_was_verified_before_is_not_verified_again() -> None:
    scheme = FieldScheme(b"token")
    assert (await ask([scheme], token=b"good")).body == b"ann"
    assert scheme.verified == 0


async def test_a_new_credential_is_verified() -> None:
    assert (await ask([FieldScheme(b"token")], token=b"new")).body == b"ann"


async def test_without_a_credential_every_scheme_says_how_to_authenticate() -> None:
    response = await ask([FieldScheme(b"token"), FieldScheme(b"key")])
    assert response.status == 401
    assert challenges(response) == [b'Bearer realm="token"', b'Bearer realm="key"']


async def test_a_refused_credential_is_told_what_is_wrong_by_its_scheme_alone() -> None:
    response = await ask([FieldScheme(b"token"), FieldScheme(b"key")], key=b"old")
    assert response.status == 401
    assert challenges(response) == [
        b'Bearer realm="token"',
        b'Bearer realm="key", error="invalid_token", error_description="The token has expired."',
    ]
    assert isinstance(response.body, bytes)
    assert msgspec.json.decode(response.body)["detail"] == "The token has expired."


@pytest.mark.parametrize("second", [b"good", b"new"])
async def test_any_of_several_schemes_will_do(second: bytes) -> None:
    assert (await ask([FieldScheme(b"token"), FieldScheme(b"key")], token=b"old", key=second)).body == b"ann"


async def test_what_cannot_be_judged_now_is_503_and_no_challenge() -> None:
    response = await ask([FieldScheme(b"token")], token=b"later")
    assert response.status == 503
    assert response.headers.get(b"retry-after") == b"5"
    assert not challenges(response)


@pytest.mark.parametrize("order", [("token", "key"), ("key", "token")])
async def test_a_credential_that_nobody_could_judge_is_not_called_bad_because_another_scheme_refuses(
    order: tuple[str, str],
) -> None:
    schemes = [FieldScheme(name.encode()) for name in order]
    assert (await ask(schemes, token=b"later", key=b"old")).status == 503
    assert (await ask(schemes, token=b"later", key=b"new")).body == b"ann"

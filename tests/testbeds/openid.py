"""A real OpenID provider as a program: tests/services/oidc, with keys that a test makes."""

import json
import re
import urllib.parse
import urllib.request
from pathlib import Path
from typing import Any

from tests.testbeds.cache import REPO
from tests.testbeds.node import prepare_node_script
from tests.testbeds.processes import Program, free_port
from tests.testbeds.tokens import Signer, number


class OpenIdProvider:
    """On a port of its own, which stays the same when it is started again."""

    def __init__(self, log: Path, *keys: Signer) -> None:
        """The first key signs."""
        self.port = free_port()
        self.url = f"http://127.0.0.1:{self.port}"
        self._script = prepare_node_script(REPO / "tests" / "services" / "oidc")
        self._log = log
        self._keys = keys
        self.program: Program | None = None

    def start(self) -> None:
        """Returns when it answers."""
        env = {"PORT": str(self.port), "KEYS": _private(*self._keys)}
        self.program = Program(self._script.command, name="oidc-provider", env=env, log=self._log)
        self.program.wait_for_line("^ready")

    def kill(self) -> None:
        """SIGKILL; nothing if it does not run."""
        if self.program is not None:
            self.program.kill()
            self.program = None

    def rotate(self, *keys: Signer) -> None:
        """Have it sign by the first of these from now on, and publish them all."""
        self._keys = keys
        request = urllib.request.Request(f"{self.url}/keys", _private(*keys).encode(), method="PUT")
        urllib.request.urlopen(request, timeout=10).close()

    def token(self, scope: str = "orders:read") -> bytes:
        """A new one, as a client gets it."""
        form = {"grant_type": "client_credentials", "scope": scope, "client_id": "shop", "client_secret": "shop-secret"}
        data = urllib.parse.urlencode(form).encode()
        with urllib.request.urlopen(f"{self.url}/token", data, timeout=10) as answer:
            token: str = json.loads(answer.read())["access_token"]
        return token.encode()

    @property
    def fetches(self) -> int:
        """Requests for its keys, since it was started."""
        assert self.program is not None
        return len([line for line in self.program.lines if re.fullmatch("GET /jwks", line)])


def _private(*keys: Signer) -> str:
    return json.dumps([_private_jwk(key) for key in keys])


def _private_jwk(signer: Signer) -> dict[str, Any]:
    """Of an RSA key."""
    numbers = signer.key.private_numbers()
    members = {
        "d": numbers.d,
        "p": numbers.p,
        "q": numbers.q,
        "dp": numbers.dmp1,
        "dq": numbers.dmq1,
        "qi": numbers.iqmp,
    }
    return {**signer.jwk, **{name: number(value) for name, value in members.items()}}

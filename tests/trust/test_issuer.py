"""The issuer in front of a login service over HTTP, with its state in a file: what clients get, and what nobody gets."""

import contextlib
import json
import os
import re
import shutil
import signal
import threading
import time
from base64 import urlsafe_b64decode, urlsafe_b64encode
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any
from warnings import catch_warnings, simplefilter

import pytest
from joserfc import jwt
from joserfc.jwk import KeySet
from tests.testbeds.gateway import Gateway
from tests.testbeds.processes import free_port
from tests.testbeds.wire import Origin
from tests.trust.issuing import KINDS, PASSWORDS, Answer, ask, know_people, login, logout, make_key, refresh, whose
from tests.wire.conftest import Start

from castlegate.config.report import Report
from castlegate.issuer.keys import load_keys

URL = "https://shop.example.com"
WEB = {"content-type": "application/x-www-form-urlencoded"}

MakeConfig = Callable[..., str]


@pytest.fixture(scope="module")
def people() -> Iterator[Origin]:
    with Origin(know_people) as origin:
        yield origin


@pytest.fixture(scope="module")
def keys(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A key of each kind."""
    folder = tmp_path_factory.mktemp("keys")
    for kind in KINDS:
        make_key(folder, f"{kind}.pem", kind)
    return folder


@pytest.fixture(scope="module")
def config(people: Origin, shared_origin: Origin, keys: Path) -> MakeConfig:
    def config(more: str = "", signs: str = "[ES256]", state: str = "tokens.db", top: str = "workers: 2") -> str:
        files = ", ".join(f"{keys}/{name.strip()}.pem" for name in signs.strip("[]").split(","))
        return f"""
{top}
services:
  people: {{http: ["http://127.0.0.1:{people.port}"]}}
  shop: {{http: ["http://127.0.0.1:{shared_origin.port}"]}}
issuer:
  url: {URL}
  audience: shop
  keys: [{files}]
  login: {{call: people, post: /check}}
  state: {{file: {state}}}
  {more}
auth: {{ours: {{issuer: true}}}}
defaults: {{auth: ours}}
routes:
  GET /me: {{call: shop, headers: {{request: {{x-who: "{{principal.subject}} {{claims.role?}}"}}}}}}
"""

    return config


@pytest.fixture(scope="module")
def gateway(start_shared: Start, config: MakeConfig) -> Gateway:
    return start_shared(config())


def claims_of(token: str) -> dict[str, Any]:
    payload = token.split(".")[1]
    claims: dict[str, Any] = json.loads(urlsafe_b64decode(payload + "=="))
    return claims


def decoded(token: str, published: Any) -> dict[str, Any]:
    """As a client of the published keys reads it."""
    with catch_warnings():
        simplefilter("ignore")  # the library calls EdDSA by its newer name
        read = jwt.decode(token, KeySet.import_key_set(published), algorithms=list(KINDS))
    return dict(read.claims)


# --- login


def test_a_login_gives_an_access_token_for_routes_and_a_refresh_token(gateway: Gateway, behind: Origin) -> None:
    answer = login(gateway.port)
    assert answer.status == 200
    assert answer.fields["cache-control"] == "no-store"
    assert answer.document.keys() == {"access_token", "token_type", "expires_in", "scope", "refresh_token"}
    assert (answer.document["token_type"], answer.document["expires_in"]) == ("Bearer", 600)
    assert whose(gateway.port, answer.access).status == 200
    assert b"\r\nx-who: ann admin\r\n" in behind.seen[0]


def test_the_claims_are_what_the_service_says_and_what_the_gateway_says_counts(gateway: Gateway) -> None:
    claims = claims_of(login(gateway.port, "bob").access)
    assert (claims["sub"], claims["role"], claims["shoe"]) == ("bob", "admin", 44)
    assert (claims["iss"], claims["aud"], claims["scope"]) == (URL, "shop", "read write")
    assert claims["exp"] - claims["iat"] == 600
    assert abs(claims["iat"] - time.time()) < 5
    assert claims["jti"] != claims_of(login(gateway.port, "bob").access)["jti"]


@pytest.mark.parametrize(("name", "password"), [("ann", "wrong"), ("eve", "wrong"), ("nobody", "-")])
def test_a_failed_login_does_not_tell_whether_there_is_such_a_user(gateway: Gateway, name: str, password: str) -> None:
    answer = login(gateway.port, name, password)
    assert (answer.status, answer.document["error"]) == (401, "invalid_grant")
    assert answer.fields["content-type"] == "application/problem+json"
    assert answer.fields["cache-control"] == "no-store"
    del answer.document["request_id"]
    reference = login(gateway.port, "ann", "wrong").document
    del reference["request_id"]
    assert answer.document == reference


@pytest.mark.parametrize(("name", "status", "after"), [("busy", 429, "7"), ("down", 503, "9")])
def test_what_the_service_says_of_later_is_passed_on(gateway: Gateway, name: str, status: int, after: str) -> None:
    answer = login(gateway.port, name)
    assert (answer.status, answer.fields["retry-after"]) == (status, after)
    assert (answer.document["detail"], answer.document["outcome"]) == ("The login failed.", "answered")


def test_an_answer_without_a_subject_is_the_services_mistake(gateway: Gateway) -> None:
    answer = login(gateway.port, "broken")
    assert (answer.status, answer.document["error"]) == (502, "server_error")
    gateway.program.wait_for_line(r"answer\.subject")
    assert "answer.subject" not in answer.document["detail"]


def test_bodies_are_bounded_and_what_is_no_login_is_told_so(gateway: Gateway, people: Origin) -> None:
    seen = len(people.seen)
    assert ask(gateway.port, "POST", "/auth/login", "x" * 17_000).status == 413
    assert ask(gateway.port, "POST", "/auth/refresh", "x" * 5_000).status == 413
    assert ask(gateway.port, "GET", "/auth/login").status == 405
    assert len(people.seen) == seen


# --- refreshing


def test_a_refresh_token_is_good_once_and_gives_the_next(gateway: Gateway, behind: Origin) -> None:
    first = login(gateway.port)
    second = refresh(gateway.port, first.refresh)
    assert second.status == 200
    assert second.fields["cache-control"] == "no-store"
    assert whose(gateway.port, second.access).status == 200
    assert {name: claims_of(second.access)[name] for name in ("sub", "role", "scope")} == {
        "sub": "ann", "role": "admin", "scope": "read write",
    }  # fmt: skip
    third = refresh(gateway.port, second.refresh)
    assert third.status == 200
    assert len({first.refresh, second.refresh, third.refresh}) == 3


def test_a_token_that_comes_a_second_time_ends_all_of_its_login_and_no_other(gateway: Gateway) -> None:
    first, other = login(gateway.port), login(gateway.port)
    second = refresh(gateway.port, first.refresh)
    again = refresh(gateway.port, first.refresh)
    assert (again.status, again.document["error"]) == (400, "invalid_grant")
    assert again.fields["cache-control"] == "no-store"
    assert refresh(gateway.port, second.refresh).status == 400
    assert refresh(gateway.port, other.refresh).status == 200


def test_of_many_uses_at_once_by_all_workers_one_wins_and_the_login_ends(gateway: Gateway) -> None:
    for _ in range(3):
        answers = at_once(8, gateway.port, login(gateway.port).refresh)
        won = [answer for answer in answers if answer.status == 200]
        assert [answer.status for answer in answers].count(400) == 7
        assert len(won) == 1
        assert refresh(gateway.port, won[0].refresh).status == 400


def at_once(count: int, port: int, token: str) -> list[Answer]:
    answers: list[Answer] = []
    barrier = threading.Barrier(count)

    def use() -> None:
        barrier.wait()
        answers.append(refresh(port, token))

    threads = [threading.Thread(target=use) for _ in range(count)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    return answers


def test_logout_ends_a_login_by_any_of_its_tokens_and_an_unknown_one_is_no_error(gateway: Gateway) -> None:
    first = login(gateway.port)
    second = refresh(gateway.port, first.refresh)
    assert logout(gateway.port, first.refresh).status == 204
    assert refresh(gateway.port, second.refresh).status == 400
    assert logout(gateway.port, second.refresh).status == 204
    assert logout(gateway.port, "nonsense").status == 204


def statuses(gateway: Gateway, token: str) -> set[int]:
    """Of so many connections that every worker has had some."""
    return {whose(gateway.port, token).status for _ in range(24)}


def test_an_access_token_ends_with_its_login_in_every_worker_at_once(gateway: Gateway) -> None:
    first, other = login(gateway.port), login(gateway.port)
    second = refresh(gateway.port, first.refresh)
    assert statuses(gateway, first.access) == statuses(gateway, second.access) == {200}
    assert logout(gateway.port, second.refresh).status == 204
    assert statuses(gateway, first.access) == statuses(gateway, second.access) == {401}
    assert "login of the token has ended" in whose(gateway.port, first.access).fields["www-authenticate"]
    assert statuses(gateway, other.access) == {200}


def test_an_access_token_ends_when_an_old_refresh_token_of_its_login_comes_again(gateway: Gateway) -> None:
    first = login(gateway.port)
    second = refresh(gateway.port, first.refresh)
    assert statuses(gateway, second.access) == {200}
    assert refresh(gateway.port, first.refresh).status == 400
    assert statuses(gateway, second.access) == {401}


def test_an_access_token_of_an_ended_login_is_refused_after_a_restart_and_others_go_on(
    tmp_path: Path, config: MakeConfig, behind: Origin
) -> None:
    gateway = Gateway(tmp_path, config())
    ended, kept = login(gateway.port), login(gateway.port)
    assert logout(gateway.port, ended.refresh).status == 204
    assert gateway.stop() == 0
    gateway = Gateway(tmp_path, config())
    try:
        assert whose(gateway.port, ended.access).status == 401
        assert whose(gateway.port, kept.access).status == 200
    finally:
        assert gateway.stop() == 0


def test_where_it_cannot_be_known_whether_a_login_goes_on_its_tokens_are_answered_503(
    tmp_path: Path, config: MakeConfig, behind: Origin
) -> None:
    (tmp_path / "state").mkdir()
    text = config(state="state/tokens.db")
    gateway = Gateway(tmp_path, text)
    token = login(gateway.port).access
    assert gateway.stop() == 0
    (tmp_path / "state" / "tokens.db").write_bytes(b"no database" * 1000)
    gateway = Gateway(tmp_path, text)
    try:
        answer = whose(gateway.port, token)
        assert (answer.status, "retry-after" in answer.fields) == (503, True)
    finally:
        assert gateway.stop() == 0


def test_an_invented_token_ends_nothing(gateway: Gateway) -> None:
    """Neither one of which half is right, be it the half that names the login."""
    mine, other = login(gateway.port), login(gateway.port)
    for invented in (
        other.refresh[:43] + mine.refresh[43:],
        "A" * 86,
        mine.refresh + "A",
        mine.refresh[:-1],
        mine.refresh.lower(),
        mine.refresh + "\n",
        "é" * 86,
        "",
    ):
        assert refresh(gateway.port, invented).status == 400
    assert refresh(gateway.port, mine.refresh).status == 200


def test_forms_of_oauth_clients_are_read(gateway: Gateway) -> None:
    token = login(gateway.port).refresh
    for wrong in ("grant_type=password&refresh_token=x", "refresh_token=a&refresh_token=b", "grant_type=refresh_token"):
        answer = ask(gateway.port, "POST", "/auth/refresh", wrong, WEB)
        assert (answer.status, answer.document["error"]) == (400, "invalid_request")
    for wrong in ("{", "[]", "1", '{"refresh_token": 1}', ""):
        answer = ask(gateway.port, "POST", "/auth/refresh", wrong)
        assert (answer.status, answer.document["error"]) == (400, "invalid_request")
    answer = ask(gateway.port, "POST", "/auth/refresh", f"grant_type=refresh_token&refresh_token={token}", WEB)
    assert answer.status == 200
    assert ask(gateway.port, "POST", "/auth/logout", f"token={answer.refresh}", WEB).status == 204
    assert refresh(gateway.port, answer.refresh).status == 400


def test_state_survives_a_restart_and_a_crash(tmp_path: Path, config: MakeConfig) -> None:
    gateway = Gateway(tmp_path, config())
    kept, used, ended = login(gateway.port), login(gateway.port), login(gateway.port)
    after = refresh(gateway.port, used.refresh)
    logout(gateway.port, ended.refresh)
    pids = [worker["pid"] for worker in gateway.workers()]
    gateway.program.send_signal(signal.SIGKILL)
    for pid in pids:  # at once, not when they notice that the supervisor has gone
        with contextlib.suppress(ProcessLookupError):
            os.kill(pid, signal.SIGKILL)
    gateway.program.wait()
    gateway = Gateway(tmp_path, config())
    try:
        assert refresh(gateway.port, kept.refresh).status == 200
        assert refresh(gateway.port, ended.refresh).status == 400
        last = refresh(gateway.port, after.refresh)
        assert last.status == 200
    finally:
        assert gateway.stop() == 0
    gateway = Gateway(tmp_path, config())
    try:
        assert refresh(gateway.port, last.refresh).status == 200
        assert refresh(gateway.port, used.refresh).status == 400
    finally:
        assert gateway.stop() == 0
    assert (tmp_path / "tokens.db").stat().st_mode & 0o077 == 0


def test_what_is_kept_and_what_is_logged_holds_no_credential(tmp_path: Path, config: MakeConfig) -> None:
    gateway = Gateway(tmp_path, config(state="kept.db"))
    first = login(gateway.port)
    second = refresh(gateway.port, first.refresh)
    refresh(gateway.port, first.refresh)
    login(gateway.port, "ann", "wrong password")
    whose(gateway.port, second.access + "x")
    gateway.wait_logged(5)
    assert gateway.stop() == 0
    written = b"".join(path.read_bytes() for path in tmp_path.iterdir() if path.is_file())
    for answer in (first, second):
        for secret in (answer.refresh, answer.refresh[:43], answer.refresh[43:], answer.access.rpartition(".")[2]):
            assert secret.encode() not in written
            assert urlsafe_b64decode(secret[:40] + "==") not in written
    for secret in ("wrong password", PASSWORDS["ann"]):
        assert secret.encode() not in written


# --- times and bounds


def test_tokens_end_with_their_time(start: Start, config: MakeConfig) -> None:
    gateway = start(config("access: 1s\n  leeway: 0s\n  refresh: {idle: 1s, lifetime: 2s}"))
    unused, first = login(gateway.port), login(gateway.port)
    answers = [first]
    ends = time.time() + 30
    while answers[-1].status == 200 and time.time() < ends:  # used again and again, it ends with its lifetime
        answers.append(refresh(gateway.port, answers[-1].refresh))
    assert answers[-1].status == 400
    assert claims_of(first.access)["iat"] + 2 <= time.time()
    assert refresh(gateway.port, unused.refresh).status == 400
    refused = whose(gateway.port, first.access)
    assert refused.status == 401
    assert "expired" in refused.fields["www-authenticate"]


@pytest.mark.parametrize(
    ("leeway", "issued", "ends", "reason"),
    [
        ("30s", 20, 60, ""),
        ("30s", -60, -20, ""),
        ("30s", 40, 60, "issued in the future"),
        ("30s", -60, -40, "expired"),
        ("0s", 5, 60, "issued in the future"),
    ],
)
def test_clocks_of_instances_may_differ_by_the_leeway(
    start: Start, config: MakeConfig, keys: Path, behind: Origin, leeway: str, issued: int, ends: int, reason: str
) -> None:
    gateway = start(config(f"leeway: {leeway}"))
    now = int(time.time())
    claims = claims_of(login(gateway.port).access) | {"iat": now + issued, "exp": now + ends}
    [key] = load_keys(["ES256.pem"], Report(keys).place("keys"))
    answer = whose(gateway.port, key.sign(claims))
    assert answer.status == (401 if reason else 200)
    assert reason in answer.fields.get("www-authenticate", "")


def test_there_are_no_more_logins_than_allowed(start: Start, config: MakeConfig) -> None:
    gateway = start(config().replace("{file: tokens.db}", "{file: few.db, most: 2}"))
    first = login(gateway.port)
    assert login(gateway.port).status == 200
    refused = login(gateway.port)
    assert (refused.status, refused.document["error"]) == (503, "temporarily_unavailable")
    assert "retry-after" in refused.fields
    assert refresh(gateway.port, first.refresh).status == 200
    assert logout(gateway.port, first.refresh).status == 204
    assert login(gateway.port).status == 200


def test_one_subject_cannot_take_the_place_of_others_also_not_over_restarts(tmp_path: Path, config: MakeConfig) -> None:
    text = config().replace("{file: tokens.db}", "{file: few.db, most: 4, per_subject: 2}")
    gateway = Gateway(tmp_path, text)
    bob, first, used = login(gateway.port, "bob"), login(gateway.port), login(gateway.port)
    used = refresh(gateway.port, used.refresh)
    assert gateway.stop() == 0
    gateway = Gateway(tmp_path, text)
    try:
        answers = [login(gateway.port) for _ in range(6)]
        assert {answer.status for answer in answers} == {200}
        for ended in (first, used, *answers[:-2]):
            assert refresh(gateway.port, ended.refresh).status == 400
            assert statuses(gateway, ended.access) == {401}
        for kept in (bob, *answers[-2:]):
            assert statuses(gateway, kept.access) == {200}
            assert refresh(gateway.port, kept.refresh).status == 200
    finally:
        assert gateway.stop() == 0


def test_the_login_that_was_not_used_for_the_longest_makes_room(start: Start, config: MakeConfig) -> None:
    gateway = start(config().replace("{file: tokens.db}", "{file: two.db, per_subject: 2}"))
    first, second = login(gateway.port), login(gateway.port)
    first = refresh(gateway.port, first.refresh)
    assert login(gateway.port).status == 200
    assert refresh(gateway.port, second.refresh).status == 400
    assert refresh(gateway.port, first.refresh).status == 200


def test_a_lost_answer_is_forgiven_where_that_is_configured(start: Start, config: MakeConfig) -> None:
    gateway = start(config("refresh: {grace: 1m}"))
    first = login(gateway.port)
    lost = refresh(gateway.port, first.refresh)
    again = refresh(gateway.port, first.refresh)
    assert again.status == 200
    assert refresh(gateway.port, again.refresh).status == 200
    assert refresh(gateway.port, lost.refresh).status == 400


# --- cookies


def test_a_cookie_that_no_script_reads_and_no_other_site_sends(start: Start, config: MakeConfig) -> None:
    gateway = start(config("refresh: {by: cookie, lifetime: 1d, idle: 1h}"))
    answer = login(gateway.port)
    assert "refresh_token" not in answer.document
    name, _, rest = answer.fields["set-cookie"].partition("=")
    value, *attributes = rest.split("; ")
    assert name == "__Secure-refresh"
    assert sorted(attributes) == ["HttpOnly", "Max-Age=3600", "Path=/auth", "SameSite=Strict", "Secure"]
    cookie = {"cookie": f"theme=dark; {name}={value}"}
    for foreign in ({"origin": "https://evil.example"}, {"sec-fetch-site": "cross-site"}):
        assert ask(gateway.port, "POST", "/auth/refresh", "", cookie | foreign).status == 403
        assert ask(gateway.port, "POST", "/auth/logout", "", cookie | foreign).status == 403
        credentials = {"name": "ann", "password": PASSWORDS["ann"]}
        assert ask(gateway.port, "POST", "/auth/login", credentials, foreign).status == 403
    assert ask(gateway.port, "POST", "/auth/refresh", {"refresh_token": value}).status == 400, "it is in no body"
    assert ask(gateway.port, "POST", "/auth/refresh", "", {"cookie": f"{name}={value}; {name}=x"}).status == 400
    second = ask(gateway.port, "POST", "/auth/refresh", "", cookie)
    assert second.status == 200
    assert "refresh_token" not in second.document
    refused = ask(gateway.port, "POST", "/auth/refresh", "", cookie)
    assert refused.status == 400
    assert re.search(r"^__Secure-refresh=; Max-Age=0; Path=/auth;", refused.fields["set-cookie"])
    third = login(gateway.port)
    left = ask(gateway.port, "POST", "/auth/logout", "", {"cookie": f"{name}={third.refresh}"})
    assert left.status == 204
    assert "Max-Age=0" in left.fields["set-cookie"]


# --- keys


@pytest.mark.parametrize("kind", KINDS)
def test_the_published_keys_verify_tokens(start: Start, config: MakeConfig, behind: Origin, kind: str) -> None:
    gateway = start(config(signs=f"[{kind}]"))
    discovery = ask(gateway.port, "GET", "/.well-known/openid-configuration").document
    assert discovery["issuer"] == URL
    assert discovery["jwks_uri"] == f"{URL}/.well-known/jwks.json"
    assert discovery["id_token_signing_alg_values_supported"] == [kind]
    published = ask(gateway.port, "GET", discovery["jwks_uri"].removeprefix(URL))
    assert published.fields["cache-control"] == "public, max-age=300"
    assert "d" not in published.document["keys"][0]
    access = login(gateway.port).access
    assert decoded(access, published.document)["sub"] == "ann"
    [key] = KeySet.import_key_set(published.document).keys
    assert key.thumbprint() == published.document["keys"][0]["kid"]
    assert whose(gateway.port, access).status == 200


def test_another_gateway_takes_the_tokens_by_discovery(
    start: Start, start_other: Start, config: MakeConfig, shared_origin: Origin, behind: Origin
) -> None:
    url = f"http://127.0.0.1:{free_port()}"
    issuing = start(config(top=f"listen: {url.removeprefix('http://')}").replace(URL, url))
    other = start_other(f"""
services: {{shop: {{http: ["http://127.0.0.1:{shared_origin.port}"]}}}}
auth: {{them: {{jwt: {{issuer: "{url}", audience: shop, fetch: {{allow_http: true}}}}}}}}
routes: {{GET /me: {{call: shop, auth: them}}}}
""")
    assert whose(other.port, login(issuing.port).access).status == 200
    assert whose(other.port, login(issuing.port).access + "x").status == 401
    assert len(behind.seen) == 1


@pytest.fixture
def start_other(tmp_path: Path) -> Iterator[Start]:
    """One with a folder of its own."""
    (tmp_path / "other").mkdir()
    running: list[Gateway] = []

    def start(config: str) -> Gateway:
        running.append(Gateway(tmp_path / "other", config))
        return running[-1]

    yield start
    for gateway in running:
        gateway.stop()


def test_keys_are_rotated_by_reloads(tmp_path: Path, config: MakeConfig, keys: Path, behind: Origin) -> None:
    gateway = Gateway(tmp_path, config(signs="[ES256]"))
    versions = 1

    def reload(signs: str) -> None:
        nonlocal versions
        versions += 1
        gateway.rewrite(config(signs=signs))
        gateway.program.send_signal(signal.SIGHUP)
        gateway.program.wait_until(lambda: all(w["version"] == versions for w in gateway.workers()), "the reload")

    try:
        old = login(gateway.port)
        reload("[ES256, EdDSA]")
        assert len(ask(gateway.port, "GET", "/.well-known/jwks.json").document["keys"]) == 2
        reload("[EdDSA, ES256]")
        new = refresh(gateway.port, old.refresh)
        published = ask(gateway.port, "GET", "/.well-known/jwks.json").document
        for answer in (old, new):
            assert whose(gateway.port, answer.access).status == 200
            assert decoded(answer.access, published)["sub"] == "ann"
        assert old.access.split(".")[0] != new.access.split(".")[0]
        reload("[EdDSA]")
        assert whose(gateway.port, old.access).status == 401
        assert whose(gateway.port, new.access).status == 200
        assert refresh(gateway.port, new.refresh).status == 200
    finally:
        assert gateway.stop() == 0


def test_a_key_that_is_replaced_in_its_file_is_used_after_a_reload(
    tmp_path: Path, config: MakeConfig, keys: Path, behind: Origin
) -> None:
    file = tmp_path / "mine.pem"
    shutil.copy(keys / "ES256.pem", file)
    text = config().replace(str(keys / "ES256.pem"), str(file))
    gateway = Gateway(tmp_path, text)
    try:
        old = login(gateway.port)
        shutil.copy(keys / "EdDSA.pem", file)
        gateway.program.send_signal(signal.SIGHUP)
        gateway.program.wait_until(lambda: all(w["version"] == 2 for w in gateway.workers()), "the reload")
        assert whose(gateway.port, old.access).status == 401
        assert whose(gateway.port, login(gateway.port).access).status == 200
    finally:
        assert gateway.stop() == 0


# --- access tokens, as an attacker writes them


def segment(value: Any) -> str:
    return urlsafe_b64encode(json.dumps(value).encode()).rstrip(b"=").decode()


FORGERIES: dict[str, Callable[[str, str, str], str]] = {
    "no signature": lambda h, p, s: f"{h}.{p}.",
    "no algorithm": lambda h, p, s: f"{segment({'alg': 'none'})}.{p}.",
    "another head": lambda h, p, s: f"{segment({'alg': 'ES256', 'typ': 'at+jwt'})}.{p}.{s}",
    "another subject": lambda h, p, s: f"{h}.{segment({**claims_of(f'{h}.{p}.{s}'), 'sub': 'root'})}.{s}",
    "a zero signature": lambda h, p, s: f"{h}.{p}.{'A' * 86}",
    "padding": lambda h, p, s: f"{h}.{p}.{s}==",
    "spare bits": lambda h, p, s: f"{h}.{p}.{s[:-1]}{'B' if s[-1] == 'A' else chr(ord(s[-1]) + 1)}",
    "standard base64": lambda h, p, s: f"{h}.{p}.{s[:-4]}+/+/",
    "a longer signature": lambda h, p, s: f"{h}.{p}.{s}AAAA",
    "four parts": lambda h, p, s: f"{h}.{p}.{s}.{s}",
    "one part": lambda h, p, s: h,
    "dots": lambda h, p, s: "..",
    "another's payload in front": lambda h, p, s: f"{h}.{p}.{p}.{s}",
    "not ASCII": lambda h, p, s: f"{h}.{p}.{s[:-1]}\xff",
    "much": lambda h, p, s: f"{h}.{p * 40}.{s}",
}


@pytest.mark.parametrize("name", FORGERIES)
def test_a_forged_access_token_is_refused(gateway: Gateway, behind: Origin, name: str) -> None:
    token = FORGERIES[name](*login(gateway.port).access.split("."))
    answer = whose(gateway.port, token)
    assert (answer.status, answer.fields.get("content-type")) == (401, "application/problem+json")
    assert not behind.seen


def test_a_refresh_token_is_no_access_token_and_the_other_way_round(gateway: Gateway, behind: Origin) -> None:
    answer = login(gateway.port)
    assert whose(gateway.port, answer.refresh).status == 401
    assert refresh(gateway.port, answer.access).status == 400
    assert not behind.seen


def test_a_token_for_another_audience_is_refused(start: Start, config: MakeConfig, gateway: Gateway) -> None:
    other = start(config().replace("audience: shop", "audience: stock"))
    assert whose(gateway.port, login(other.port).access).status == 401

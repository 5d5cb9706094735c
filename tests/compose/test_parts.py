"""Parts: what runs when, what one may lack, and what becomes of the whole."""

import json
import threading
import time

import pytest
from tests.compose.conftest import Services, Start, ask, assert_quiet, http
from tests.testbeds.wire import Client

HOME = """
  GET /home/{user}:
    compose:
      user: {call: s, get: "/users/{path.user}"}
      orders: {call: s, get: "/orders?of={user.id}", optional: true}
      recs: {call: s, get: "/recs", fallback: {items: []}}
"""


@pytest.fixture
def home(services: Services) -> Services:
    services.says("/users/7", {"id": 7, "name": "Ada"})
    services.says("/orders", [{"id": 1}])
    services.says("/recs", {"items": [1]})
    return services


def test_each_part_stands_under_its_name_in_the_order_in_which_they_are_written(home: Services, start: Start) -> None:
    answer = ask(start(HOME), "/home/7")
    assert answer.status == 200
    assert answer.fields["content-type"] == "application/json"
    assert answer.body == b'{"user":{"id": 7, "name": "Ada"},"orders":[{"id": 1}],"recs":{"items": [1]}}'
    assert answer.parts == {"user": "ok", "orders": "ok", "recs": "ok"}
    assert home.asked("/orders")[0].startswith(b"GET /orders?of=7 ")


def test_a_part_begins_when_its_inputs_are_there_and_no_later(home: Services, start: Start) -> None:
    gateway = start(HOME)
    home.hold("/users/7", "/recs")
    got: list[int] = []
    client = threading.Thread(target=lambda: got.append(ask(gateway, "/home/7").status))
    client.start()
    home.wait_asked("/users/7", gateway)
    home.wait_asked("/recs", gateway)
    assert not home.asked("/orders")
    home.release("/users/7")
    home.wait_asked("/orders", gateway)
    home.release("/recs")
    client.join(5)
    assert got == [200]


def test_services_get_the_client_s_fields_but_those_that_are_about_the_whole(home: Services, start: Start) -> None:
    fields = "Accept-Encoding: gzip", "Range: bytes=0-1", "If-None-Match: x", "Accept: text/html", "X-Tenant: t"
    ask(start(HOME), "/home/7?page=2", *fields)
    [request] = home.asked("/users/7")
    head = request.decode().split("\r\n")
    assert head[0] == "GET /users/7 HTTP/1.1"
    assert "x-tenant: t" in head
    assert "accept-encoding: identity" in head
    assert [line for line in head if line.startswith(("range", "if-none", "accept:"))] == [
        "accept: application/json, text/*;q=0.5"
    ]
    [deadline] = [line.partition(": ")[2] for line in head if line.startswith("x-deadline-ms: ")]
    assert 0 < int(deadline) / 1000 - time.time() < 2


def test_an_optional_part_that_fails_is_null_and_told(home: Services, start: Start) -> None:
    home.says("/orders", {}, status=500)
    answer = ask(start(HOME), "/home/7")
    assert (answer.status, answer.json["orders"], answer.parts["orders"]) == (200, None, "error")
    assert answer.fields["cache-control"] == "no-store"


def test_a_fallback_stands_in_for_a_part_that_fails(home: Services, start: Start) -> None:
    del home.answers["/recs"]  # it hangs up
    answer = ask(start(HOME), "/home/7")
    assert (answer.status, answer.json["recs"], answer.parts["recs"]) == (200, {"items": []}, "fallback")


def test_another_call_stands_in_before_the_fallback(home: Services, start: Start) -> None:
    gateway = start("""
  GET /a:
    compose:
      first: {call: gone, get: /x, fallback_call: {call: s, get: /recs}, fallback: none}
      second: {call: gone, get: /x, fallback_call: {call: gone, get: /y}, fallback: none}
      third: {call: gone, get: /x, fallback_call: {call: gone, get: /y}, optional: true}
""")
    answer = ask(gateway, "/a")
    assert answer.json == {"first": {"items": [1]}, "second": "none", "third": None}
    assert answer.parts == {"first": "fallback", "second": "fallback", "third": "error"}


def test_another_call_stands_in_for_one_that_is_late(home: Services, start: Start) -> None:
    parts = "".join(
        f"      p{number}: {{call: s, get: /slow, timeout: 50ms, fallback_call: {{call: s, get: /recs, timeout: 1s}}}}\n"
        for number in range(20)
    )
    gateway = start(f"  GET /a:\n    compose:\n{parts}")
    home.hold("/slow")
    answer = ask(gateway, "/a")
    assert set(answer.parts.values()) == {"fallback"}


SETTLED_AT_ONCE = {
    "a value": "{value: {k: 1}}",
    "left out": '{call: s, get: /recs, when: "1 == 2", fallback: {k: 1}}',
    "a reference that is missing": '{call: s, get: "/{query.nope}", fallback: {k: 1}}',
    "each of nothing": '{call: s, get: /x, each: "{query.none?}", fallback: {k: 1}}',
}


@pytest.mark.parametrize("how", SETTLED_AT_ONCE)
def test_what_waits_for_a_part_that_is_settled_at_once_is_asked_once(home: Services, start: Start, how: str) -> None:
    home.says("/pay", {"paid": True})
    home.says("/after", {})
    gateway = start(f"""
  POST /a:
    compose:
      first: {SETTLED_AT_ONCE[how]}
      pay: {{call: s, post: /pay, send: {{k: "{{first.k?}}"}}}}
      after: {{call: s, post: /after, send: {{k: "{{pay.paid?}}"}}}}
""")
    answer = ask(gateway, "/a", method="POST")
    assert answer.status == 200
    asked = {name: len(home.asked(f"/{name}")) for name in ("pay", "after")}
    assert asked == {name: int(answer.parts[name] == "ok") for name in asked}


def test_values_are_parts_too(home: Services, start: Start) -> None:
    gateway = start("""
  GET /a/{id}:
    compose:
      user: {call: s, get: /users/7}
      greeting: {value: {to: "{user.name}", text: "Hello {user.name}", id: "{path.id}"}}
      version: {value: 3}
""")
    answer = ask(gateway, "/a/9")
    assert answer.json["greeting"] == {"to": "Ada", "text": "Hello Ada", "id": "9"}
    assert answer.json["version"] == 3


@pytest.mark.parametrize(
    ("service", "status", "kind", "outcome"),
    [
        (http(b"{}", status=500), 502, "service_error", "answered"),
        (http(b"{}", status=404), 502, "service_error", "answered"),
        (http(b"{}", status=302, fields=("location: /x",)), 502, "service_error", "answered"),
        (http(b"{}", status=503, fields=("retry-after: 7",)), 503, "service_error", "answered"),
        (http(b"{}", status=429), 503, "service_error", "answered"),
        (http(b"{}", status=504), 504, "service_error", "answered"),
        (http(b"{"), 502, "bad_answer", "answered"),
        (b"HTTP/1.1 2x0 OK\r\n\r\n", 502, "bad_answer", "answered"),
    ],
)
def test_what_a_required_part_failed_with_decides_the_status(
    services: Services, start: Start, service: bytes, status: int, kind: str, outcome: str
) -> None:
    services.answers["/x"] = service
    answer = ask(start("  POST /a: {compose: {x: {call: s, post: /x}}}"), "/a", method="POST", body=b"{}")
    told = answer.json
    assert (answer.status, told["type"], told["outcome"]) == (status, f"urn:castlegate:{kind}", outcome)
    assert answer.fields["content-type"] == "application/problem+json"
    assert answer.fields.get("retry-after") == ("7" if b"retry-after" in service else None)
    assert told["detail"].startswith("The part 'x' failed: ")
    assert told["parts"]["x"]["outcome"] == ("timeout" if status == 504 else "error")
    assert list(answer.parts) == ["x"]


def test_nothing_was_sent_where_no_service_could_be_reached(start: Start) -> None:
    gateway = start("  POST /a: {compose: {x: {call: gone, post: /x}, y: {call: gone, post: /y}}}")
    answer = ask(gateway, "/a", method="POST", body=b"{}")
    assert (answer.status, answer.json["outcome"]) == (502, "not_sent")


def test_one_part_that_was_sent_is_enough_for_it_not_to_be_not_sent(services: Services, start: Start) -> None:
    services.says("/x", 1)
    gateway = start('  POST /a: {compose: {x: {call: s, post: /x}, y: {call: gone, post: "/y/{x}"}}}')
    answer = ask(gateway, "/a", method="POST", body=b"{}")
    assert (answer.status, answer.json["outcome"]) == (502, "answered")
    assert answer.parts == {"x": "ok", "y": "error"}


def test_the_rest_is_cancelled_at_once_and_may_have_been_executed(services: Services, start: Start) -> None:
    gateway = start("""
  POST /a:
    compose:
      slow: {call: s, post: /slow}
      bad: {call: s, post: /bad}
      after: {call: s, post: "/after/{slow}"}
""")
    services.hold("/slow", "/bad")
    services.says("/bad", {}, status=500)
    answers = []
    client = threading.Thread(target=lambda: answers.append(ask(gateway, "/a", method="POST", body=b"{}")))
    client.start()
    services.wait_asked("/slow", gateway)
    services.wait_asked("/bad", gateway)
    services.release("/bad")
    client.join(5)
    assert_quiet(gateway)  # while the slow one still has not answered
    [answer] = answers
    assert (answer.status, answer.json["outcome"]) == (502, "unknown")
    assert answer.parts == {"slow": "cancelled", "bad": "error", "after": "skipped"}
    assert not services.asked("/after/1")


def test_a_client_that_leaves_leaves_nothing_running(services: Services, start: Start) -> None:
    gateway = start("  GET /a: {compose: {x: {call: s, get: /x}, y: {call: s, get: /y}}}", timeout="30s")
    services.hold("/x", "/y")
    with pytest.raises(TimeoutError):
        _ask_briefly(gateway.port)
    assert_quiet(gateway)


def _ask_briefly(port: int) -> None:
    with Client(port, timeout_s=0.3) as client:
        client.send(b"GET /a HTTP/1.1\r\nHost: h\r\n\r\n").read_answer()


def test_a_part_s_own_timeout_ends_it_and_the_route_s_ends_all(services: Services, start: Start) -> None:
    services.hold("/x", "/y")
    services.says("/z", 1)
    gateway = start(
        """
  GET /own: {compose: {x: {call: s, get: /x, timeout: 100ms, optional: true}, z: {call: s, get: /z}}}
  GET /all: {timeout: 200ms, compose: {x: {call: s, get: /x}, y: {call: s, get: /y, timeout: 10s, optional: true}}}
""",
        timeout="20s",
    )
    began = time.monotonic()
    own = ask(gateway, "/own")
    assert (own.status, own.parts) == (200, {"x": "timeout", "z": "ok"})
    late = ask(gateway, "/all")
    assert (late.status, late.parts["x"], late.json["outcome"]) == (504, "timeout", "unknown")
    assert time.monotonic() - began < 10


def test_an_answer_that_does_not_end_in_time_is_late(services: Services, start: Start) -> None:
    services.answers["/x"] = b"HTTP/1.1 200 OK\r\ncontent-length: 100\r\ncontent-type: application/json\r\n\r\n{"
    gateway = start("  GET /a: {compose: {x: {call: s, get: /x, timeout: 200ms, optional: true}}}", timeout="20s")
    answer = ask(gateway, "/a")
    assert (answer.status, answer.json, answer.parts) == (200, {"x": None}, {"x": "timeout"})


def test_a_part_is_left_out_unless_its_condition_is_true_and_so_are_those_that_need_it(
    home: Services, start: Start
) -> None:
    gateway = start("""
  GET /a:
    compose:
      user: {call: s, get: /users/7}
      vip: {call: s, get: /recs, when: "has(user.vip) && user.vip"}
      more: {call: s, get: "/more/{vip.items.0}"}
      asked: {call: s, get: /recs, when: "query.recs == '1'"}
      kept: {call: s, get: /recs, when: "user.name == 'Ada'"}
""")
    answer = ask(gateway, "/a")
    assert answer.json == {
        "user": {"id": 7, "name": "Ada"}, "vip": None, "more": None, "asked": None, "kept": {"items": [1]},
    }  # fmt: skip
    assert answer.parts == {"user": "ok", "vip": "skipped", "more": "skipped", "asked": "skipped", "kept": "ok"}
    assert ask(gateway, "/a?recs=1").json["asked"] == {"items": [1]}


def test_what_a_part_lacks_is_its_service_s_mistake_what_the_request_lacks_the_client_s(
    home: Services, start: Start
) -> None:
    gateway = start("""
  GET /part: {compose: {user: {call: s, get: /users/7}, x: {call: s, get: "/x/{user.none}"}}}
  GET /client: {compose: {user: {call: s, get: "/users/{query.id}"}}}
  GET /perhaps: {compose: {user: {call: s, get: /users/7}, x: {call: s, get: "/recs?a={user.none?}"}}}
""")
    part, client = ask(gateway, "/part"), ask(gateway, "/client")
    assert (part.status, part.json["detail"]) == (502, "The part 'x' failed: user.none is missing.")
    assert (client.status, client.json["outcome"]) == (400, "not_sent")
    assert ask(gateway, "/perhaps").status == 200


def test_a_required_part_whose_input_failed_fails_as_that_did(services: Services, start: Start) -> None:
    services.hold("/slow")
    gateway = start("""
  GET /a:
    compose:
      first: {call: s, get: /slow, optional: true, timeout: 100ms}
      second: {call: s, get: "/x/{first.id}"}
""")
    answer = ask(gateway, "/a")
    assert (answer.status, answer.parts) == (504, {"first": "timeout", "second": "skipped"})


def test_a_part_that_was_never_asked_because_its_input_failed_is_told_as_skipped(
    services: Services, start: Start
) -> None:
    services.says("/down", {}, status=500)
    services.says("/instead", 7)
    gateway = start("""
  GET /a:
    compose:
      first: {call: s, get: /down, optional: true}
      second: {call: s, get: "/x/{first.id}", optional: true}
      third: {call: s, get: "/x/{second.id}", optional: true}
      fourth: {call: s, get: "/x/{first.id}", fallback: 1}
      fifth: {call: s, get: "/x/{first.id}", fallback_call: {call: s, get: /instead}}
  GET /needed:
    compose:
      first: {call: s, get: /down, optional: true}
      second: {call: s, get: "/x/{first.id}", optional: true}
      third: {call: s, get: "/x/{second.id}"}
""")
    answer = ask(gateway, "/a", "Prefer: parts")
    assert answer.parts == {
        "first": "error", "second": "skipped", "third": "skipped", "fourth": "fallback", "fifth": "fallback",
    }  # fmt: skip
    assert answer.json["_parts"]["second"].keys() == {"outcome", "ms"}
    needed = ask(gateway, "/needed")
    assert (needed.status, needed.parts) == (502, {"first": "error", "second": "skipped", "third": "skipped"})
    assert needed.json["detail"] == (
        "The part 'third' was not asked, since what it needs failed: The service answered 500."
    )


def test_a_status_is_passed_on_where_the_part_says_so(services: Services, start: Start) -> None:
    services.says("/users/9", {"error": "no such user"}, status=404)
    gateway = start(
        "  GET /a: {compose: {user: {call: s, get: /users/9, pass_status: [404]}, x: {call: s, get: /slow}}}"
    )
    services.hold("/slow")
    answer = ask(gateway, "/a")
    assert (answer.status, answer.json) == (404, {"error": "no such user"})
    assert answer.parts == {"user": "error", "x": "cancelled"}


def test_so_are_the_fields_that_tell_caches_and_clients_what_to_do_with_it(services: Services, start: Start) -> None:
    services.says("/ids", {"id": 9}, fields=("cache-control: private, max-age=60", "vary: cookie"))
    services.says("/gone", 1, status=404, fields=("cache-control: max-age=600", "vary: authorization", "x-own: 1"))
    services.says("/who", 1, status=401, fields=("www-authenticate: Basic realm=a", "cache-control: no-store"))
    services.says("/busy", 1, status=429, fields=("retry-after: 7",))
    gateway = start("""
  GET /gone: {compose: {x: {call: s, get: /gone, pass_status: [404]}}}
  GET /of: {compose: {ids: {call: s, get: /ids}, x: {call: s, get: "/gone?{ids.id}", pass_status: [404]}}}
  GET /who: {compose: {x: {call: s, get: /who, pass_status: [401], pass_headers: [www-authenticate]}}}
  GET /busy: {compose: {x: {call: s, get: /busy, pass_status: [429]}}}
""")
    gone, of, who, busy = (ask(gateway, path) for path in ("/gone", "/of", "/who", "/busy"))
    assert (gone.status, gone.fields["cache-control"], gone.fields["vary"]) == (404, "max-age=600", "authorization")
    assert "x-own" not in gone.fields
    assert (of.fields["cache-control"], of.fields["vary"]) == ("private, max-age=60", "authorization, cookie")
    assert (who.fields["www-authenticate"], who.fields["cache-control"]) == ("Basic realm=a", "no-store")
    assert (busy.fields["retry-after"], "cache-control" in busy.fields) == ("7", False)


def test_the_client_s_body_goes_to_each_part_that_says_nothing_of_its_own(services: Services, start: Start) -> None:
    services.says("/x", 1)
    services.says("/y", 2)
    services.says("/z", 3)
    gateway = start("""
  POST /a:
    status: 201
    compose:
      x: {call: s, post: /x}
      y: {call: s, post: /y, send: {item: "{body.item}", of: "{x}"}, headers: {request: {x-key: "{x}"}}}
      z: {call: s, get: /z}
""")
    answer = ask(gateway, "/a", "Content-Type: application/vnd.x+json", method="POST", body=b'{"item": 5}')
    assert (answer.status, answer.json) == (201, {"x": 1, "y": 2, "z": 3})
    x, y, z = services.asked("/x")[0], services.asked("/y")[0], services.asked("/z")[0]
    assert x.endswith(b'\r\n\r\n{"item": 5}')
    assert b"\r\ncontent-type: application/vnd.x+json\r\n" in x
    assert y.endswith(b'\r\n\r\n{"item":5,"of":1}')
    assert b"\r\ncontent-type: application/json\r\n" in y
    assert b"\r\nx-key: 1\r\n" in y
    assert z.endswith(b"\r\n\r\n")
    assert b"content-type" not in z


def test_parts_are_counted_by_outcome(home: Services, start: Start) -> None:
    gateway = start(HOME)
    del home.answers["/recs"]
    ask(gateway, "/home/7")
    counted = {
        (part, outcome): gateway.metrics().get(
            f'castlegate_parts_total{{route="GET /home/{{user}}",part="{part}",outcome="{outcome}"}}', 0
        )
        for part, outcome in (("user", "ok"), ("recs", "fallback"), ("recs", "ok"))
    }
    assert counted == {("user", "ok"): 1, ("recs", "fallback"): 1, ("recs", "ok"): 0}


def test_the_report_is_in_the_body_for_those_who_prefer_it(home: Services, start: Start) -> None:
    home.says("/orders", {}, status=500)
    answer = ask(start(HOME), "/home/7", "Prefer: parts")
    assert answer.json["_parts"]["user"]["outcome"] == "ok"
    assert answer.json["_parts"]["orders"] | {"ms": 0} == {
        "outcome": "error", "ms": 0, "reason": "service_error", "detail": "The service answered 500.",
    }  # fmt: skip
    assert answer.fields["preference-applied"] == "parts"


def test_server_timing_is_told_where_it_is_enabled(home: Services, start: Start) -> None:
    gateway = start(HOME + "    server_timing: true\n")
    timing = ask(gateway, "/home/7").fields["server-timing"]
    assert [entry.partition(";dur=")[0] for entry in timing.split(", ")] == ["user", "orders", "recs"]


def test_fields_of_parts_pass_only_where_that_is_said(home: Services, start: Start) -> None:
    home.says("/users/7", {"id": 7, "name": "Ada"}, fields=("set-cookie: a=1", "set-cookie: b=2", "x-inner: 1"))
    gateway = start("""
  GET /none: {compose: {user: {call: s, get: /users/7}}}
  GET /some:
    headers: {response: {x-user: "{user.name}"}}
    compose: {user: {call: s, get: /users/7, pass_headers: [set-cookie]}}
""")
    assert "set-cookie" not in ask(gateway, "/none").fields
    some = ask(gateway, "/some")
    assert (some.fields["set-cookie"], some.fields["x-user"]) == ("b=2", "Ada")
    assert "x-inner" not in some.fields


@pytest.mark.parametrize(
    ("first", "second", "whole"),
    [
        ("max-age=60", "max-age=10", "max-age=10"),
        ("max-age=60", "private, max-age=600", "private, max-age=60"),
        ("max-age=60", "no-store", "no-store"),
        ("max-age=60", None, "no-cache"),
        (None, None, None),
    ],
)
def test_the_whole_may_be_kept_as_long_as_the_part_that_may_be_kept_the_shortest(
    services: Services, start: Start, first: str | None, second: str | None, whole: str | None
) -> None:
    for path, control in (("/x", first), ("/y", second)):
        services.says(path, 1, fields=() if control is None else (f"cache-control: {control}",))
    answer = ask(start("  GET /a: {compose: {x: {call: s, get: /x}, y: {call: s, get: /y}}}"), "/a")
    assert answer.fields.get("cache-control") == whole


def test_no_shared_cache_keeps_for_an_authorized_request_what_one_part_does_not_let_it(
    services: Services, start: Start
) -> None:
    services.says("/x", 1, fields=("cache-control: max-age=60",))
    services.says("/y", 1, fields=("cache-control: max-age=60, must-revalidate",))
    gateway = start("  GET /a: {compose: {x: {call: s, get: /x}, y: {call: s, get: /y}}}")
    assert ask(gateway, "/a").fields["cache-control"] == "max-age=60, must-revalidate"
    authorized = ask(gateway, "/a", "Authorization: Basic eDp5")
    assert authorized.fields["cache-control"] == "private, max-age=60, must-revalidate"


def test_head_has_the_fields_and_no_body(home: Services, start: Start) -> None:
    gateway = start(HOME)
    with Client(gateway.port) as client:
        client.send(b"HEAD /home/7 HTTP/1.1\r\nHost: h\r\n\r\n")
        status, fields, _ = client.read_answer(bodiless=True)
    assert (status, fields["castlegate-parts"].count("outcome=ok")) == (200, 3)


def test_problems_are_json_also_of_many_parts(start: Start) -> None:
    parts = "\n".join(f"      p{number}: {{call: gone, get: /x}}" for number in range(64))
    answer = ask(start(f"  GET /a:\n    compose:\n{parts}"), "/a")
    assert answer.status == 502
    assert len(json.loads(answer.body)["parts"]) == 64

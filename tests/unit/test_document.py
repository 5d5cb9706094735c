"""Documents from YAML and from Python. The words of mistakes are told by tests/golden/config."""

from pathlib import Path

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from castlegate.calls.settings import CallSettings, HeaderRules
from castlegate.config.environment import Environment
from castlegate.config.reading import read
from castlegate.config.report import ConfigError, Report
from castlegate.config.shapes import fields_of
from castlegate.config.source import compose
from castlegate.config.validation import validate
from castlegate.document import Document, Route, RouteDefaults, Service, check, load
from castlegate.edge.settings import EdgeTimeouts, Listen
from castlegate.endpoints.settings import PublishSettings, RouteLimits
from castlegate.guards.settings import Repeats
from castlegate.upstreams.http.settings import HttpPool, HttpService
from castlegate.upstreams.kafka.settings import Kafka, KafkaOperation, KafkaService

SHOP = """
listen: 0.0.0.0:8080
admin: 127.0.0.1:9000
access_log: "off"
kafka: {bootstrap: "${KAFKA}", max_pending: "${PENDING}", librdkafka: {sasl.password: "${PASSWORD}", queued.min.messages: 5}}
drain: 5s

services:
  users:  {http: [http://users-1:8000, http://users-2:8000]}
  recs:
    http: {instances: [http://recs:8000], pool: {connect_timeout: 250ms}}
  orders: {kafka: {dialect: nest, operations: {get: {topic: orders.v1.get, timeout: 1s}}}}
  mail:   {kafka: faststream}

defaults: {public: true, timeout: 2s}

routes:
  GET /orders/{id}:
    call: orders.get
    send: {id: "{path.id}", secret: "${PASSWORD}"}
    key: "{path.id}"
  GET /users/{user}:
    timeout: 800ms
    call: users
    get: "/u/{path.user}?page={query.page?}"
    headers: {request: {X-Tenant: "{header.x-tenant?}", Cookie: null}}
  ANY /recs/{rest...}: {call: recs, strip_prefix: /recs}
  POST /signups: {publish: signups, key: "{body.mail}", limits: {body: 64KiB}}
"""
VARIABLES = {"KAFKA": "kafka:9092", "PENDING": "500", "PASSWORD": "a{b}c"}
IN_PYTHON = Document(
    listen=Listen(address="0.0.0.0:8080"),
    kafka=Kafka(bootstrap="kafka:9092"),
    services={"users": Service(http=HttpService(instances=["http://users:8000"]))},
    routes={"GET /users/{id}": Route(call="users", public=True)},
)


def loaded(tmp_path: Path, text: str) -> Document:
    path = tmp_path / "gateway.yaml"
    path.write_text(text)
    return load(path, VARIABLES).document


def mistakes(document: Document) -> list[str]:
    with pytest.raises(ConfigError) as raised:
        check(document)
    return str(raised.value).splitlines()


def test_a_whole_document_becomes_its_structs(tmp_path: Path) -> None:
    document = loaded(tmp_path, SHOP)
    assert document.listen.address == "0.0.0.0:8080"
    assert document.admin.address == "127.0.0.1:9000"
    assert document.access_log.path == "off"
    assert document.drain.limit == 5.0
    assert document.kafka is not None
    assert document.kafka.max_pending == 500
    assert document.kafka.librdkafka == {"sasl.password": "a{b}c", "queued.min.messages": 5}
    assert document.services["users"].http == HttpService(instances=["http://users-1:8000", "http://users-2:8000"])
    assert document.services["recs"].http == HttpService(
        instances=["http://recs:8000"], pool=HttpPool(connect_timeout=0.25)
    )
    operations = {"get": KafkaOperation(topic="orders.v1.get", timeout=1.0)}
    assert document.services["orders"].kafka == KafkaService(dialect="nest", operations=operations)
    assert document.services["mail"].kafka == KafkaService(dialect="faststream")
    assert document.routes["POST /signups"] == Route(
        publish="signups", key="{body.mail}", limits=RouteLimits(body=65536)
    )


def test_braces_of_a_secret_are_no_reference(tmp_path: Path) -> None:
    document = loaded(tmp_path, SHOP)
    assert document.routes["GET /orders/{id}"].send == {"id": "{path.id}", "secret": "a{{b}}c"}


def test_defaults_hold_where_a_route_says_nothing(tmp_path: Path) -> None:
    document = loaded(tmp_path, SHOP)
    assert document.effective(document.routes["GET /orders/{id}"]).timeout == 2.0
    assert document.effective(document.routes["GET /users/{user}"]).timeout == 0.8
    assert document.effective(document.routes["GET /users/{user}"]).public is True


def test_a_document_built_in_python_is_checked_the_same_way() -> None:
    check(IN_PYTHON)
    wrong = msgspec.structs.replace(
        IN_PYTHON,
        listen=Listen(address="8080", timeouts=EdgeTimeouts(idle=-1.0)),
        routes={"GET /users/{id}": Route(call="usres", public=True, timeout=0.0, send={"x": ["{path.di}"]})},
    )
    assert sorted(mistakes(wrong)) == [
        "listen.address: found '8080', expected host:port; write 0.0.0.0:8080 for all interfaces, or 127.0.0.1:8080",
        "listen.timeouts.idle: must be more than 0s, found '-1s'",
        "routes['GET /users/{id}'].call: no service is called 'usres'; did you mean 'users'?",
        "routes['GET /users/{id}'].send.x[0]: no path parameter 'di'; did you mean 'id'?",
        "routes['GET /users/{id}'].timeout: must be more than 0s, found '0s'",
    ]


def test_a_wrong_type_in_python_is_a_mistake_and_not_a_crash() -> None:
    wrong = msgspec.structs.replace(
        IN_PYTHON,
        drain="5s",
        services={"users": Service(http=HttpService(instances="http://users:8000"))},  # type: ignore[arg-type]
        kafka=Kafka(bootstrap="x:1", max_pending=True, librdkafka={"a": [1]}),  # type: ignore[dict-item]
    )
    assert sorted(mistakes(wrong)) == [
        "drain: expected a duration with its unit, such as 800ms, 2s or 5m, or a mapping with 'notice' and 'limit', found '5s' (str)",
        "kafka.librdkafka.a: expected text, a whole number, a number or true or false, found [1] (list)",
        "kafka.max_pending: expected a whole number, found true (bool)",
        "services.users.http.instances: expected a list, found 'http://users:8000' (str)",
    ]


def test_a_route_is_a_call_an_event_and_what_defaults_may_say() -> None:
    parts = (CallSettings, PublishSettings, Repeats, RouteDefaults)
    assert list(fields_of(Route)) == [name for part in parts for name in fields_of(part)]
    assert Route(call="users", post="/x").verb == "post"


def test_a_file_that_is_not_there_is_a_mistake(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"none\.yaml: cannot be read: No such file"):
        load(tmp_path / "none.yaml")


def test_mistakes_found_later_stand_in_the_same_report_with_their_place(tmp_path: Path) -> None:
    path = tmp_path / "gateway.yaml"
    path.write_text(SHOP)
    report = load(path, VARIABLES).report
    assert not report
    report.place("routes", "GET /orders/{id}", "key").mistake("found later")
    report.place("kafka", "bootstrap").mistake("it was kafka:9092")
    assert str(report) == (
        f"{path}:5:20: 'kafka.bootstrap': it was ${{KAFKA}}\n"
        f"{path}:21:10: 'key' of route 'GET /orders/{{id}}': found later"
    )


STRUCTS = (Document, Route, Service, Kafka, KafkaService, HttpService, Listen, HeaderRules)
KEYS = ["GET /a/{x}", "ANY /b/{y...}", "users", "orders", "X-A"]
SCALARS = [
    None, True, 0, -5, 2.5, "", "x", "2s", "64KiB", "/a", "users", "orders.get", "nest", "embedded", "{path.x}", "{y?}",
    "{", "${A}", "http://u:80", "0.0.0.0:80", "/a/{path.x}?b={query.c[]}",
]  # fmt: skip
names = st.sampled_from([name for struct in STRUCTS for name in fields_of(struct)] + KEYS)
values = st.recursive(
    st.sampled_from(SCALARS),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(names, inner, max_size=4),
    max_leaves=25,
)


@given(st.dictionaries(names, values, max_size=6), st.dictionaries(names, st.dictionaries(names, values)))
def test_nothing_that_can_be_written_crashes_it(document: dict[str, object], routes: dict[str, object]) -> None:
    report = Report()
    content = msgspec.json.encode({**document, "routes": routes})
    root = compose(content, "g.yaml", Environment({"A": "{b}"}, Path()), report)
    assert root is not None
    read_document = read(root, Document, report.place())
    assert read_document is not None
    validate(read_document, report.place())
    assert all(mistake.position is not None and mistake.text for mistake in report.mistakes)


def test_a_policy_that_asks_who_calls_is_warned_of_where_nobody_knows_it(tmp_path: Path) -> None:
    path = tmp_path / "gateway.yaml"
    path.write_text("""
services: {users: {http: [http://users:8000]}}
auth: {keys: {keys: some.keys}}
policies: {own: principal.subject == 'ann', any: "principal == null || principal.subject == 'ann'", get: method == 'GET'}
defaults: {auth: keys, policy: [own, any, get]}
routes:
  GET /mine: {call: users}
  GET /open: {call: users, public: true}
  GET /none: {call: users, public: true, policy: []}
""")
    path.with_name("some.keys").touch()
    (warning,) = load(path).report.warnings
    assert "8:3: route 'GET /open': the policy 'own' asks who calls, which nobody knows on this route" in str(warning)

"""What must hold between the parts of a configuration: names that are referred to, what goes together, who has a path.

What a value must fulfil on its own is checked by the struct that it stands in.
"""

from __future__ import annotations

import re
from collections.abc import Iterable
from typing import TYPE_CHECKING

import msgspec

from castlegate.calls.settings import VERBS, CallSettings
from castlegate.composition.checking import check_composition
from castlegate.config.addresses import parse_address
from castlegate.config.fields import spelling
from castlegate.config.references import Scope
from castlegate.config.report import Place, listed, show, suggest
from castlegate.config.shapes import fields_of
from castlegate.config.templates import Sink, compile_json, compile_text
from castlegate.functions import refuse_beside_function
from castlegate.guards.retry import check_retries
from castlegate.guards.settings import Repeats, check_guards, check_hedge, check_repeats
from castlegate.issuer.settings import DEFAULT_TOPIC, IssuerPaths
from castlegate.policies.authorize import check_nobody, check_public, check_use
from castlegate.policies.facts import RequestFacts
from castlegate.policies.limits.settings import Named, check_limits
from castlegate.python.reference import is_function
from castlegate.routing.passing import Entry, ways_past
from castlegate.routing.template import RouteKey, parse_key
from castlegate.upstreams.http.balance import Balance
from castlegate.upstreams.kafka.settings import KafkaService, check_reply_mode, check_topic

if TYPE_CHECKING:
    from castlegate.composition.settings import PartSettings
    from castlegate.document import Document, OwnIssuer, Route, Scheme, Service

_ALL = {"0.0.0.0", "::"}
_NOT_REPEATED = "goes with 'call'; an event is stored once, and each part of 'compose' says it of its own call"
_OF_PATH = re.compile(r"\{path\.([^{}?:]+)[^{}]*\}")
_SERVICE_NAME = re.compile(r"[A-Za-z][A-Za-z0-9_-]*")
_HTTP_ONLY = (*VERBS, "strip_prefix", "add_prefix")
_KAFKA_ONLY = ("key", "status", "reply", "gather")


def check_agreement(document: Document, at: Place) -> None:
    """Report every mistake."""
    _check_ports(document, at)
    _check_limit_store(document, at)
    for name, service in document.services.items():
        _check_service(document, name, service, at)
    for name, scheme in document.auth.items():
        _check_scheme(document, scheme, at.field("auth", name), at)
    if not document.routes and not at.field("routes").spoilt:
        at.mistake("there are no 'routes'; one looks like 'GET /users/{id}: {call: users, public: true}'")
    named: Named = {}
    taken = _check_issuer(document, document.issuer, named, at) if document.issuer is not None else {}
    for name, scheme in document.auth.items():
        if scheme.issuer and document.issuer is None and not at.field("issuer").spoilt:
            at.field("auth", name).mistake("there is no issuer; say who issues tokens at the top: 'issuer: ...'")
        _check_own_limits(document, name, scheme, at)
    told = document.told_names()
    _check_told(document, told, at)
    names_by_shape: dict[object, str] = {}
    for name, route in document.routes.items():
        place = at.field("routes", name)
        key = parse_key(name, place)
        if key is not None:
            if key.shape in taken:
                other = f"'{taken[key.shape]}' in 'paths' of 'issuer'"
                place.mistake(f"it matches the same requests as {other}; one of them needs another path")
            _check_unique(name, names_by_shape.setdefault(key.shape, name), place)
            effective = document.effective(route)
            scope = document.scope(key, effective, told)
            if route.compose is None:
                _compile_templates(route, scope, place)
            else:
                check_composition(route, effective.timeout, scope, place, RequestFacts, key.method)
            check_limits(effective, scope, place, named, public=bool(effective.public))
            _check_state(
                document, effective, (place if route.quota is not None else at.field("defaults")).field("quota"), at
            )
            _check_forwarded(document, effective, at)
        _check_access(document, route, place, at)
        _check_authorization(document, route, key, place, at)
        _check_purpose(document, route, key, place, at)
        _check_repeats(document, route, name, place, at)
    if not at.report.mistakes:
        _warn_of_ways_past(document, at)


def _check_ports(document: Document, at: Place) -> None:
    admin = at.field("admin", "address")
    if admin.spoilt or at.field("listen", "address").spoilt:
        return
    host, port = parse_address(document.listen.address)
    admin_host, admin_port = parse_address(document.admin.address)
    if port == admin_port != 0 and (host == admin_host or not _ALL.isdisjoint((host, admin_host))):
        # Whichever of them the file says.
        said = admin if admin.path in at.report.positions or not at.report.positions else at.field("listen", "address")
        said.mistake(f"'listen' and 'admin' are both on port {port} of {admin_host}; give each its own")


def _check_limit_store(document: Document, at: Place) -> None:
    store, place = document.limit_store, at.field("limit_store")
    if store.store != "kafka":
        return
    check_topic(store.topic, place.field("topic"))
    if document.kafka is None and not at.field("kafka").spoilt:
        place.field("store").mistake("there is no 'kafka' to count over; say where it is: 'kafka: {bootstrap: ...}'")
    for name, route in document.routes.items():
        if route.publish == store.topic:
            mistake = "over this topic instances tell each other what they admitted ('limit_store')"
            at.field("routes", name, "publish").mistake(mistake)
    if document.issuer is not None and document.issuer.state.topic == store.topic:
        place.field("topic").mistake("this topic holds the refresh tokens of 'issuer'")


def _check_state(document: Document, route: Route, place: Place, at: Place) -> None:
    kept = document.state is not None or at.field("state").spoilt or document.limit_store.store == "redis"
    if route.quotas and not kept:
        place.mistake("a 'quota' is to outlive restarts: say where it is kept, such as 'state: /var/lib/castlegate'")


def _check_service(document: Document, name: str, service: Service, at: Place) -> None:
    place = at.field("services", name)
    if not _SERVICE_NAME.fullmatch(name):
        place.mistake("a service's name has letters, digits, '_' and '-', and begins with a letter")
    if service.kafka is not None:
        _check_kafka(document, place.field("kafka"), at)
    if service.http is not None:
        _check_balance(document, name, service.http.balance, place.field("http", "balance", "key"))
    check_guards(service, place, kafka=service.kafka is not None)
    if service.concurrency is not None:
        service.concurrency.check_share(document.worker_count, place.field("concurrency", "limit"))
    if service.hedge is not None and service.http is not None and len(service.http.instances) == 1:
        place.field("hedge").warning("there is one instance alone, which would be asked the same twice")
    if service.canary is not None:
        _check_other(document, name, service.canary.service, place.field("canary", "service"), at)
    if service.mirror is not None:
        _check_shadow(document, name, service.mirror.service, place.field("mirror", "service"), at)


def _check_balance(document: Document, name: str, balance: Balance, at: Place) -> None:
    """That the parameter of the path which decides is one that some route has."""
    param = _OF_PATH.fullmatch(balance.key or "")
    if param is None or at.spoilt:
        return
    calling = [text for text, route in document.routes.items() if name in _called(route)]
    if calling and not any(f"{{{param[1]}" in text for text in calling):
        at.mistake(f"no route that calls '{name}' has a path parameter '{param[1]}'")


def _called(route: Route) -> set[str]:
    """The services that it calls."""
    return {(each.call or "").partition(".")[0] for each in (route, *route.composed)}


def _check_other(document: Document, name: str, said: str, place: Place, at: Place) -> Service | None:
    """The service that takes calls of this one, or copies of them: another one of the same protocol, and the last."""
    other, service = document.services.get(said), document.services[name]
    if other is None:
        if not (at.field("services").spoilt or at.field("services", said).spoilt):
            place.mistake(f"no service is called {place.shown(said)}{suggest(said, document.services, 'there are')}")
    elif said == name:
        place.mistake("this is the service itself; name another one")
    elif (other.http is None) != (service.http is None):
        place.mistake(f"'{said}' and '{name}' do not speak the same protocol")
    elif other.canary is not None or other.mirror is not None:
        place.mistake(f"'{said}' passes calls on itself, with 'canary' or 'mirror'; name one that does not")
    else:
        return other
    return None


def _check_shadow(document: Document, name: str, said: str, place: Place, at: Place) -> None:
    """That copies share nothing with calls that somebody waits for."""
    other = _check_other(document, name, said, place, at)
    if other is None:
        return
    if other.http is None:
        place.mistake("only calls of services that speak HTTP are copied: over Kafka they would share what others need")
    elif callers := _callers(document, said):
        place.mistake(
            f"'{said}' is called by {callers}, whose connections copies would take; name a service for it alone"
        )


def _callers(document: Document, said: str) -> str:
    """Who calls a service, copies apart; nothing if nobody does. What functions call is seen where they are checked."""
    if any(said in _called(route) for route in document.routes.values()):
        return "routes"
    if any(said in _called(route) for route in document.every_route().values()):
        return "the login of 'issuer'"
    for name, scheme in document.auth.items():
        if scheme.authorizer is not None and scheme.authorizer.call.partition(".")[0] == said:
            return f"the authorizer '{name}'"
    for name, service in document.services.items():
        if service.canary is not None and service.canary.service == said:
            return f"'{name}' as its canary"
    return ""


def _check_scheme(document: Document, scheme: Scheme, place: Place, at: Place) -> None:
    """Whether there is what it relies on."""
    if scheme.authorizer is not None:
        place, calls = place.field("authorizer"), scheme.authorizer.calls
        _check_call(document, scheme.authorizer.call, calls, None, place, at)
        service = document.services.get(scheme.authorizer.call)
        if service is not None and service.http is not None and calls.verb is None:
            place.mistake(f"'{scheme.authorizer.call}' speaks HTTP: say what is asked of it, such as 'post: /verify'")
    tls = document.listen.tls
    if scheme.certificate is not None and (tls is None or tls.clients is None) and not at.field("listen", "tls").spoilt:
        place.field("certificate").mistake(
            "clients are not asked for certificates; say 'listen: {tls: {clients: ...}}'"
        )


def _check_own_limits(document: Document, name: str, scheme: Scheme, at: Place) -> None:
    """Whether somebody heeds the limits that keys of a file have."""
    place = at.field("auth", name, "keys", "file")
    if scheme.keys is None or place.spoilt:
        return
    routes = [document.effective(route) for route in document.routes.values()]
    heeded = any(name in route.schemes and any(rate.own for rate in route.rates) for route in routes)
    if not heeded and scheme.keys.has_limits(at.report.folder):
        remedy = "'limit: {rate: 10/s, per: key, own: true}' on those routes, or in 'defaults', heeds them"
        place.warning(f"keys in it have a limit, and no route that takes these keys heeds it; {remedy}")


def _check_kafka(document: Document, place: Place, at: Place) -> None:
    if document.kafka is None and not at.field("kafka").spoilt:
        place.mistake("this needs a Kafka cluster; say which at the top: 'kafka: {bootstrap: host:9092}'")


def _check_issuer(document: Document, issuer: OwnIssuer, named: Named, at: Place) -> dict[object, str]:
    """What its routes match, and which of them does."""
    place = at.field("issuer")
    state = place.field("state")
    topic = issuer.state.topic
    if issuer.state.file is None and document.kafka is None and not (at.field("kafka").spoilt or state.spoilt):
        hint = "'state: {file: tokens.db}' for a single instance, or a Kafka cluster at the top for any number"
        state.mistake(f"nothing says where it is kept which refresh tokens are good: {hint}")
    for name, route in document.routes.items():
        if route.publish is not None and issuer.state.file is None and route.publish == (topic or DEFAULT_TOPIC):
            at.field("routes", name, "publish").mistake("this topic holds the refresh tokens of 'issuer'")
    check_nobody(
        document.policies, document.defaults.policies, "the routes of 'issuer'", at.field("defaults", "policy")
    )
    taken: dict[object, str] = {}
    if place.field("paths").spoilt or any(place.field("paths", name).spoilt for name in fields_of(IssuerPaths)):
        return taken
    for text, (name, said) in issuer.routes().items():
        key = parse_key(text, place.field("paths", name))
        if key is None:
            continue
        taken[key.shape] = name
        route, where = document.effective(said), place.field("login") if name == "login" else place.field("paths", name)
        check_limits(route, document.scope(key, route), where, named, public=True)
        _check_state(document, route, (where if said.quota is not None else at.field("defaults")).field("quota"), at)
        if name == "login":
            _check_login(document, said, key, place.field("login"), at)
    return taken


def _check_login(document: Document, said: Route, key: RouteKey, place: Place, at: Place) -> None:
    route = document.effective(said)
    if said.headers.response:
        place.field("headers", "response").mistake("what a client gets of a login is made by the gateway")
    _refuse(
        said, ("status", "reply", "gather"), "has no meaning for a login, whose answer is made by the gateway", place
    )
    _compile_templates(said, document.scope(key, route), place)
    if said.call is not None:
        _check_call(document, said.call, route, key, place, at)
    elif not place.field("call").spoilt:
        place.mistake("'call' is missing: the service that knows who has which credentials")


def _check_told(document: Document, told: frozenset[str], at: Place) -> None:
    """That nothing else says or reads what only the gateway says of callers."""
    reason = "under this name services are told who calls"
    for name, route in document.routes.items():
        calls: list[tuple[CallSettings, Place]] = [(route, at.field("routes", name))]
        for part, settings in (route.compose or {}).items():
            place = at.field("routes", name, "compose", part)
            calls.append((settings, place))
            if settings.fallback_call is not None:
                calls.append((settings.fallback_call, place.field("fallback_call")))
        for call, place in calls:
            for field in call.headers.request:
                if spelling(field) in told:
                    place.field("headers", "request", field).mistake(f"{reason}; say it with 'identity'")
    for name, service in document.services.items():
        place = at.field("services", name, "kafka")
        for index, field in enumerate(() if service.kafka is None else service.kafka.forward_headers):
            if spelling(field) in told:
                place.field("forward_headers", index).mistake(reason)
        for field, written in () if service.kafka is None else service.kafka.names.in_use():
            if spelling(written) in told:
                place.field("names", field).mistake(reason)
    for name, policy in document.policies.items():
        for field in policy.fields:
            if spelling(field) in told:
                at.field("policies", name, "allow").mistake(f"headers['{field}'] is never there: {reason}")


def _check_unique(name: str, other: str, place: Place) -> None:
    if other != name:
        position = place.report.position((*place.path[:-1], other))
        line = f" in line {position.line}" if position is not None else ""
        place.mistake(f"it matches the same requests as '{other}'{line}")


def _check_access(document: Document, said: Route, place: Place, at: Place) -> None:
    route = document.effective(said)
    inherited = said.public is None and said.auth is None
    where = at.field("defaults") if inherited else place
    if where.field("public").spoilt or where.field("auth").spoilt or place.field("public").spoilt:
        return
    if route.public and route.auth is not None:
        where.field("public").mistake("both 'public: true' and 'auth' are said; a route is open or it is not")
    elif route.public is None and route.auth is None:
        place.mistake("every route must say who may call it; name a scheme with 'auth', or open it: 'public: true'")
    elif not route.public and not route.schemes:
        said_at = place if route.auth is None else where.field("auth")
        said_at.mistake("this leaves nobody who may call it; name a scheme with 'auth', or open it: 'public: true'")
    for name in route.schemes:
        if name not in document.auth and not at.field("auth").spoilt and not at.field("auth", name).spoilt:
            hint = suggest(name, document.auth, "there are") or "; there are none under 'auth'"
            hint = "; to open it, write 'public: true'" if name in ("none", "public", "anonymous") else hint
            where.field("auth").mistake(f"no scheme is called {show(name)}{hint}")


def _check_authorization(document: Document, said: Route, key: RouteKey | None, place: Place, at: Place) -> None:
    route = document.effective(said)
    where = (place if said.policy is not None else at.field("defaults")).field("policy")
    inherited = not said.public
    if route.public and not (at.field("defaults") if inherited else place).field("public").spoilt:
        check_public(said, place, inherited=inherited)
        check_nobody(document.policies, route.policies, "this route", place)
    if key is None:
        return
    for name in route.policies:
        policy = document.policies.get(name)
        if policy is not None:
            at_use = place.field("policy") if said.policy is not None else place
            check_use(name, policy, key.params, at_use)
            _check_withheld(document, route, f"the policy '{name}' asks for headers", policy.fields, at_use)
        elif not (where.spoilt or at.field("policies").spoilt or at.field("policies", name).spoilt):
            hint = suggest(name, document.policies, "there are") or "; there are none under 'policies'"
            where.mistake(f"no policy is called {show(name)}{hint}")


def _check_withheld(document: Document, route: Route, who: str, fields: Iterable[str], place: Place) -> None:
    """That nobody relies on fields of which the credential was taken out."""
    for scheme, carrier in document.withheld(route):
        gone = {spelling(field) for field in carrier.fields}
        for field in fields:
            if spelling(field) in gone:
                remedy = "say 'forward: true' there if it is needed"
                place.mistake(f"{who}['{field}'], and '{scheme}' takes out what it has accepted; {remedy}")


def _check_forwarded(document: Document, route: Route, at: Place) -> None:
    """Whether a service behind Kafka is to get fields of which the credential is taken out."""
    names = {(call.call or "").partition(".")[0] for call in (route, *route.composed)}
    for name in names & document.services.keys():
        kafka = document.services[name].kafka
        _warn_of_forwarded(document, route, name, [] if kafka is None else kafka.forward_headers, at)


def _warn_of_forwarded(document: Document, route: Route, name: str, forwarded: list[str], at: Place) -> None:
    for scheme, carrier in document.withheld(route):
        gone = {spelling(field) for field in carrier.fields}
        for index, field in enumerate(forwarded):
            if spelling(field) in gone:
                place = at.field("services", name, "kafka", "forward_headers", index)
                place.warning(f"'{scheme}' takes out what it has accepted; say 'forward: true' there if it is needed")


def _warn_of_ways_past(document: Document, at: Place) -> None:
    """Routes that look shut, and are not."""
    entries = []
    for name, said in document.routes.items():
        route, key = document.effective(said), parse_key(name, at.field("routes", name))
        assert key is not None, "there are no mistakes"
        is_open = bool(route.public) and not route.policies and route.addresses is None
        leads = route.call, route.strip_prefix, route.add_prefix
        as_asked = route.call is not None and route.verb is None and route.call in document.services
        entries.append(Entry(name, key, is_open, leads if as_asked else None))
    for shut, opened, methods in ways_past(entries):
        host = "" if opened.key.host is None or shut.key.host else f"on the host {opened.key.host.decode()} "
        own = f"'ANY {(opened.key.host or b'').decode()}{shut.key.path}'"
        at.field("routes", shut.name).warning(
            f"{host}{listed(methods)} of this path go to '{opened.name}', which is open and calls the same service; "
            f"if that is not meant, shut them with a route {own}"
        )


def _check_purpose(document: Document, route: Route, key: RouteKey | None, place: Place, at: Place) -> None:
    """Whether it calls or publishes, and what goes with that."""
    said = [name for name in ("call", "compose", "publish") if getattr(route, name) is not None]
    if len(said) > 1:
        place.mistake(f"both {listed([repr(name) for name in said])} are said; a route does one of them")
    elif route.compose is not None:
        for name, part in route.compose.items():
            _check_part(document, part, place.field("compose", name), at)
    elif is_function(route.call):
        refuse_beside_function(route, place)
    elif route.call is not None:
        _check_call(document, route.call, route, key, place, at)
    elif route.publish is not None:
        check_topic(route.publish, place.field("publish"))
        _check_kafka(document, place.field("publish"), at)
        _refuse(route, (*_HTTP_ONLY, "status", "reply", "gather"), "goes with 'call', not with 'publish'", place)
    elif not any(place.field(name).spoilt for name in ("call", "compose", "publish")):
        place.mistake("none of 'call', 'compose' and 'publish' is said; a route does one of them")
    if route.compose is None:
        _refuse(route, ("shape", "server_timing"), "goes with 'compose'", place)


def _check_part(document: Document, part: PartSettings, place: Place, at: Place) -> None:
    """Of a composition: its calls."""
    calls: list[tuple[CallSettings, Place]] = [(part, place)]
    if part.fallback_call is not None:
        calls.append((part.fallback_call, place.field("fallback_call")))
        if part.fallback_call.call is None:
            place.field("fallback_call").mistake("'call' is missing: the service that is asked instead")
    for call, where in calls:
        if call.call is None:
            continue
        if is_function(call.call):
            refuse_beside_function(call, where)
            continue
        _check_call(document, call.call, call, None, where, at)
        _refuse(call, ("strip_prefix", "add_prefix"), "is for routes that forward their own path", where)
        service = document.services.get(call.call.partition(".")[0])
        if service is not None and service.http is not None and call.verb is None and not where.field("call").spoilt:
            where.mistake(f"'{call.call}' speaks HTTP: say what is asked of it, such as 'get: /users/{{path.id}}'")


def _check_call(
    document: Document, call: str, route: CallSettings, key: RouteKey | None, place: Place, at: Place
) -> None:
    name, _, operation = call.partition(".")
    service = document.services.get(name)
    at_call = place.field("call")
    if service is None:
        if not (at.field("services").spoilt or at.field("services", name).spoilt):
            hint = suggest(name, document.services, "there are") or "; there are none under 'services'"
            if call.startswith(("http://", "https://")):
                hint = "; a URL goes under 'services', and the service is named here"
            known_by_name = at_call.path not in at.report.written
            at_call.mistake(f"no service is called {show(name) if known_by_name else at_call.shown(call)}{hint}")
    elif service.http is not None:
        if operation:
            at_call.mistake(
                f"'{name}' speaks HTTP, which has no operations; write '{name}', and 'get: /...' or the like"
            )
        _refuse(route, _KAFKA_ONLY, f"is for services behind Kafka, '{name}' speaks HTTP", place)
        _check_forwarding(route, key, place)
    elif service.kafka is not None:
        _refuse(route, _HTTP_ONLY, f"is for services that speak HTTP, '{name}' is behind Kafka", place)
        if route.reply is not None:
            check_reply_mode(route.reply, service.kafka, place.field("reply"))
        _check_operation(name, operation, service.kafka, route, key, at_call)


def _check_forwarding(route: CallSettings, key: RouteKey | None, place: Place) -> None:
    """Of a call over HTTP that takes method and path from the client's."""
    if key is None or route.verb is not None:
        return
    if key.method in (b"GET", b"HEAD") and route.send is not msgspec.UNSET and not place.field("send").spoilt:
        place.field("send").mistake(f"a {key.method.decode()} carries no body; say 'post' or the like to send one")
    prefix = route.strip_prefix
    if prefix is not None and not f"{key.path}/".startswith(f"{prefix}/") and not place.field("strip_prefix").spoilt:
        at = place.field("strip_prefix")
        at.mistake(f"{at.shown(prefix)} is not what the route's path '{key.path}' begins with")


def _check_operation(
    name: str, operation: str, service: KafkaService, route: CallSettings, key: RouteKey | None, at_call: Place
) -> None:
    """Of a call over Kafka."""
    if not operation:
        known = listed([f"'{name}.{each}'" for each in service.operations], "or")
        at_call.mistake(f"'{name}' is behind Kafka: say which operation, such as {known or f'{name}.get'}")
        return
    found = service.operations.get(operation)
    if found is None or found.topic is None:
        check_topic(f"{name}.{operation}", at_call)
    if found is not None and found.key is not None and route.key is None and key is not None:
        at = at_call.report.place("services", name, "kafka", "operations", operation, "key")
        compile_text(found.key, Sink.KEY, key.scope(), at)


def _check_repeats(document: Document, route: Route, name: str, place: Place, at: Place) -> None:
    """What a route, or its service, says of further tries."""
    timeout = document.timeout(route)
    if route.call is not None:
        _check_further_tries(document, route.call, route, timeout, name, place, at)
        return
    for field in fields_of(Repeats):
        if getattr(route, field) is not None:
            place.field(field).mistake(_NOT_REPEATED)
    for part_name, part in (route.compose or {}).items():
        if part.call is not None:
            repeats, within = Repeats(retry=part.retry, hedge=part.hedge), min(part.timeout or timeout, timeout)
            part_place = place.field("compose", part_name)
            _check_further_tries(document, part.call, repeats, within, f"{part_name} of {name}", part_place, at)


def _check_further_tries(
    document: Document, call: str, repeats: Repeats, timeout: float, name: str, place: Place, at: Place
) -> None:
    """Of a call that has `timeout` seconds."""
    service_name = call.partition(".")[0]
    service = document.services.get(service_name)
    if is_function(call):
        for field in fields_of(Repeats):
            if getattr(repeats, field) is not None:
                place.field(field).mistake("this is for services; what a function did is not done again")
    if service is None:
        return
    kafka = service.kafka is not None
    if repeats.retry is not None:
        check_retries(repeats.retry, place.field("retry"), kafka=kafka)
    check_hedge(repeats.hedge, place, kafka=kafka)
    check_repeats(repeats, service, timeout, place, at.field("services", service_name), name)


def _refuse(route: CallSettings, fields: tuple[str, ...], reason: str, place: Place) -> None:
    for field in fields:
        if getattr(route, field) is not None:
            place.field(field).mistake(f"this {reason}")


def _compile_templates(route: Route, scope: Scope, place: Place) -> None:
    """For the mistakes in them."""
    if route.verb is not None:
        compile_text(getattr(route, route.verb), Sink.TARGET, scope, place.field(route.verb))
    if route.key is not None:
        compile_text(route.key, Sink.KEY, scope, place.field("key"))
    if route.send is not msgspec.UNSET:
        compile_json(route.send, scope, place.field("send"))
    for way, fields in (("request", route.headers.request), ("response", route.headers.response)):
        for name, text in fields.items():
            if text is not None:
                compile_text(text, Sink.HEADER, scope, place.field("headers", way, name))

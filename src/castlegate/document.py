"""The root of the configuration: one field per feature, and what must hold between them.

The structs are what operators write in YAML and what Python programs build; `load` and `check` report every mistake of
either at once. What a value must fulfil on its own is checked by the struct that it stands in, beside its feature.
"""

from __future__ import annotations

import os
import re
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar, Literal, NamedTuple

import msgspec

from castlegate.calls.roots import PRINCIPAL
from castlegate.calls.settings import VERBS, CallSettings
from castlegate.config.addresses import is_loopback, parse_address
from castlegate.config.environment import Environment
from castlegate.config.fields import spelling
from castlegate.config.joining import join
from castlegate.config.reading import read
from castlegate.config.references import HeaderRoot, Scope
from castlegate.config.report import ConfigError, Place, Report, listed, show, suggest
from castlegate.config.shapes import fields_of
from castlegate.config.source import LARGEST_FILE, compose, resolve
from castlegate.config.templates import Sink, compile_json, compile_text
from castlegate.config.units import Count, SecondsOrZero
from castlegate.config.validation import validate
from castlegate.edge.settings import Listen
from castlegate.endpoints.settings import PublishSettings, RouteBounds, RouteLimits
from castlegate.guards.identity import Identity
from castlegate.issuer.settings import DEFAULT_TOPIC, IssuerPaths, IssuerSettings
from castlegate.policies.addresses import AddressSettings
from castlegate.policies.authenticate import Access
from castlegate.policies.authorize import OF_CALLERS, Authorization, check_nobody, check_public, check_use
from castlegate.policies.cors import CorsSettings
from castlegate.policies.limits.settings import Limits, Named, check_limits, of_anybody
from castlegate.policies.named import NamedPolicy
from castlegate.policies.origin import OriginSettings
from castlegate.policies.secure import SecureSettings
from castlegate.policies.validate import ValidationSettings
from castlegate.routing.passing import Entry, ways_past
from castlegate.routing.template import RouteKey, parse_key
from castlegate.schemes.authorizer import Authorizer
from castlegate.schemes.certificate import ClientCertificate
from castlegate.schemes.introspection import Introspection
from castlegate.schemes.jwt import Jwt
from castlegate.schemes.keys import Keys
from castlegate.stores.settings import LimitStore
from castlegate.upstreams.http.settings import HttpService
from castlegate.upstreams.kafka.settings import Kafka, KafkaService, check_reply_mode, check_topic

_ALL = {"0.0.0.0", "::"}
_LARGEST_LOGIN = 16 * 1024  # bytes, where its own limits say nothing
_LARGEST_REFRESH = 4 * 1024
_SERVICE_NAME = re.compile(r"[A-Za-z][A-Za-z0-9_-]*")
_HTTP_ONLY = (*VERBS, "strip_prefix", "add_prefix")
_KAFKA_ONLY = ("key", "status", "reply")

_REDACTED = (
    "access_token", "api_key", "apikey", "authorization", "client_secret", "code", "cookie", "id_token", "password",
    "refresh_token", "secret", "set-cookie", "sig", "signature", "token",
)  # fmt: skip

_ROUTE = """What is done with the requests of one route. Its key is `METHOD [HOST]/PATH`, such as `GET /orders/{id}`.

    `ANY` takes every method that has no route of its own; `{name}` is one segment of the path, `{name...}`, as the
    last one, all that follow. Every route says `call` or `publish`, and who may call it.
    """

_GROUPS: tuple[type[msgspec.Struct], ...] = (
    Access,
    Authorization,
    Limits,
    RouteBounds,
    SecureSettings,
    CorsSettings,
    AddressSettings,
    OriginSettings,
    ValidationSettings,
)
"""What routes and `defaults` can say, by feature."""

_LOGIN = """How credentials are sent to a service, which answers with who it is or refuses.

    A client's request is refused with 401 where the service answers with a status from 400 to 499, or with nothing:
    `null`, or an empty body. 429 and 503 go to the client, with their `Retry-After`.
    """

_DEFAULTS = "What every route takes that does not say otherwise."

if TYPE_CHECKING:

    class RouteDefaults(
        Access,
        Authorization,
        Limits,
        RouteBounds,
        SecureSettings,
        CorsSettings,
        AddressSettings,
        OriginSettings,
        ValidationSettings,
        kw_only=True,
        frozen=True,
        forbid_unknown_fields=True,
    ):
        """What every route takes that does not say otherwise."""

    class Route(CallSettings, PublishSettings, RouteDefaults, kw_only=True, frozen=True, forbid_unknown_fields=True):
        """What is done with the requests of one route."""

    class Login(CallSettings, RouteDefaults, kw_only=True, frozen=True, forbid_unknown_fields=True):
        """How credentials are sent to a service."""

else:
    Login = join(
        "Login",
        CallSettings,
        *[each for each in _GROUPS if each not in (Access, Authorization)],
        module=__name__,
        doc=_LOGIN,
    )
    RouteDefaults = join("RouteDefaults", *_GROUPS, module=__name__, doc=_DEFAULTS)
    Route = join("Route", CallSettings, PublishSettings, *_GROUPS, module=__name__, doc=_ROUTE)


class OwnIssuer(IssuerSettings, kw_only=True, frozen=True, forbid_unknown_fields=True):
    """Tokens of the gateway's own, for teams without an identity provider: a service says who somebody is, the gateway
    signs short-lived access tokens and keeps account of refresh tokens.
    """

    login: Login
    """Where credentials are sent, and what holds for the route of the login beyond `defaults`."""

    def routes(self) -> dict[str, tuple[str, Route]]:
        """Those that it adds, by their keys, each with the field of `paths` that names it. A login or a refresh needs
        no more than a small body.
        """
        own = self.login.limits or RouteLimits()
        limits = msgspec.structs.replace(own, body=_LARGEST_LOGIN if own.body is None else own.body)
        said = {name: getattr(self.login, name) for name in fields_of(Login)}
        small = Route(public=True, limits=RouteLimits(body=_LARGEST_REFRESH))
        paths = self.paths
        return {
            f"POST {paths.login}": ("login", Route(**{**said, "public": True, "limits": limits})),
            f"POST {paths.refresh}": ("refresh", small),
            f"POST {paths.logout}": ("logout", small),
            f"GET {paths.keys}": ("keys", small),
            f"GET {paths.discovery}": ("discovery", small),
        }


class Scheme(msgspec.Struct, kw_only=True, frozen=True, forbid_unknown_fields=True):
    """One way in which callers prove who they are."""

    issuer: bool | None = None
    """`true`: by an access token of the gateway's own `issuer`, in `Authorization: Bearer ...`."""
    jwt: Jwt | None = None
    """A signed token (JWT) of an identity provider."""
    authorizer: Authorizer | None = None
    """A credential of any kind, judged by one of the services."""
    certificate: ClientCertificate | None = None
    """The certificate that the client showed in its TLS handshake."""
    introspection: Introspection | None = None
    """An opaque token, judged by the authorization server that issued it."""
    keys: Keys | None = None
    """An API key, of which a file holds the hash."""

    @property
    def kind(self) -> str:
        """Which of its fields is said."""
        return next(name for name in fields_of(Scheme) if getattr(self, name) is not None)

    @property
    def secret_parameters(self) -> list[str]:
        """Query parameters that carry its credential, so that they are not to be logged."""
        return getattr(getattr(self, self.kind), "secret_parameters", [])

    def check(self, at: Place) -> None:
        """One way."""
        said = [name for name in fields_of(Scheme) if getattr(self, name) is not None]
        if len(said) != 1 and not any(at.field(name).spoilt for name in fields_of(Scheme)):
            at.mistake(f"expected one of {listed([repr(name) for name in fields_of(Scheme)], 'or')}")
        if self.issuer is False:
            at.field("issuer").mistake("write 'true', or name another way")


class Service(msgspec.Struct, kw_only=True, frozen=True, forbid_unknown_fields=True):
    """A service that routes call by name; how it is reached is said only here."""

    http: HttpService | None = None
    """It speaks HTTP/1.1."""
    kafka: KafkaService | None = None
    """It answers requests on Kafka topics."""
    identity: Identity | Literal["none"] | None = None
    """What it is told of who calls, in place of what all services are told; `none` for nothing."""

    def check(self, at: Place) -> None:
        """One protocol."""
        if self.http is not None and self.kafka is not None:
            at.mistake("both 'http' and 'kafka' are said; a service speaks one of them")
        elif self.http is None and self.kafka is None and not (at.field("http").spoilt or at.field("kafka").spoilt):
            at.mistake("neither 'http' nor 'kafka' is said; a service speaks one of them")


class Admin(msgspec.Struct, kw_only=True, frozen=True, forbid_unknown_fields=True):
    """Where operators look: `/health`, `/ready`, `/metrics`, and with the token `/workers` and `/reload`.

    A plain `host:port` stands for `address` alone.
    """

    short: ClassVar[str] = "address"

    address: str = "127.0.0.1:9901"
    """`host:port`. Not to be reached by clients: probes and metrics ask nobody who they are."""
    token: str | None = None
    """What operators send as `Authorization: Bearer ...` for everything but probes and metrics. Without it these are
    served on loopback only. From the environment or a file: `${ADMIN_TOKEN}`, `${file:/run/secrets/admin}`."""

    def check(self, at: Place) -> None:
        """The address and the token."""
        try:
            parse_address(self.address)
        except ValueError as error:
            at.field("address").refuse(self.address, error)
        if self.token is not None and len(self.token) < 16:
            at.field("token").mistake("expected at least 16 characters")

    @property
    def guarded(self) -> bool:
        """Whether the token is asked for, rather than nothing: off loopback there is no other way."""
        return self.token is not None or not is_loopback(parse_address(self.address)[0])


class Drain(msgspec.Struct, kw_only=True, frozen=True, forbid_unknown_fields=True):
    """How the instance stops on SIGTERM. A plain duration stands for `limit` alone."""

    short: ClassVar[str] = "limit"

    notice: SecondsOrZero = 0.0
    """For so long new connections are still taken while `/ready` already says 503 and clients are told to close: the
    time that balancers need to notice."""
    limit: SecondsOrZero = 30.0
    """How long requests in flight may take to finish after that; then they are cut."""


class AccessLog(msgspec.Struct, kw_only=True, frozen=True, forbid_unknown_fields=True):
    """One line of JSON for each request. A plain path stands for `path` alone."""

    short: ClassVar[str] = "path"

    path: str = "stdout"
    """`stdout`, `off`, or a file that lines are appended to."""
    redact: list[str] = msgspec.field(default_factory=lambda: list(_REDACTED))
    """Query parameters, and header fields where they are logged, whose values are not written."""

    def check(self, at: Place) -> None:
        """A place to write to."""
        if not self.path or "\0" in self.path:
            found = "nothing" if not self.path else "a name that no file can have"
            at.field("path").mistake(f"expected 'stdout', 'off' or a file, found {found}")
        elif not isinstance(resolve(self.path), str):
            # Whoever writes `false` or `1` does not mean a file of that name.
            place = at.field("path")
            place.mistake(f"expected 'stdout', 'off' or a file, found {place.shown(self.path)}")


class Document(msgspec.Struct, kw_only=True, frozen=True, forbid_unknown_fields=True):
    """The whole configuration."""

    listen: Listen = Listen()
    """Where clients connect."""
    admin: Admin = Admin()
    """Where operators look."""
    access_log: AccessLog = AccessLog()
    """Who asked for what, and what became of it."""
    workers: Count | Literal["auto"] = 1
    """Processes that serve; `auto` is one for each processor."""
    watch: bool = False
    """`true` reloads whenever the file changes, as SIGHUP does. A file with a mistake in it changes nothing."""
    drain: Drain = Drain()
    """How the instance stops."""
    kafka: Kafka | None = None
    """The Kafka cluster."""
    state: str | None = None
    """A folder of this instance alone, for what must outlive a restart: what is used of quotas, written every second in
    the background and when the gateway stops, so that a crash forgets a second at most. Only a restart changes it."""
    limits: LimitStore = LimitStore()
    """Where limits are counted."""
    auth: dict[str, Scheme] = {}
    """The ways in which callers prove who they are, by the names that routes say."""
    issuer: OwnIssuer | None = None
    """Tokens of the gateway's own."""
    policies: dict[str, NamedPolicy] = {}
    """Conditions on requests, by the names that routes say."""
    identity: Identity | None = None
    """What services are told of who calls."""
    services: dict[str, Service] = {}
    """The services by name."""
    defaults: RouteDefaults = RouteDefaults()
    """What every route takes that does not say otherwise."""
    routes: dict[str, Route] = {}
    """The routes by method and path."""

    def every_route(self) -> dict[str, Route]:
        """With those that the issuer adds."""
        added = {} if self.issuer is None else self.issuer.routes()
        return {**self.routes, **{name: route for name, (_, route) in added.items()}}

    def effective(self, route: Route) -> Route:
        """The route with `defaults` where it says nothing."""
        missing: dict[str, object] = {}
        for group in _GROUPS:
            fields = fields_of(group)
            if getattr(group, "one_choice", False) and any(getattr(route, name) is not None for name in fields):
                continue
            for name in fields:
                said, default = getattr(route, name), getattr(self.defaults, name)
                if said is None or getattr(type(said), "merges", False):
                    missing[name] = merged(said, default)
        if missing.get("public", route.public):  # callers are not known there
            missing |= {name: getattr(route, name) for name in OF_CALLERS}
            missing |= {name: of_anybody(missing[name]) for name in fields_of(Limits) if name in missing}
        return msgspec.structs.replace(route, **missing)

    @property
    def redacted(self) -> list[str]:
        """Names whose values the access log does not write."""
        carried = [name for scheme in self.auth.values() for name in scheme.secret_parameters]
        return [*self.access_log.redact, *carried]

    def identity_of(self, service: str) -> Identity | None:
        """What a service is told of who calls."""
        said = self.services[service].identity
        return self.identity if said is None else said if isinstance(said, Identity) else None

    def told_names(self) -> frozenset[str]:
        """The fields by which services are told who calls, by their `spelling`: no client is heard under these."""
        said = [self.identity, *[service.identity for service in self.services.values()]]
        return frozenset(spelling(name) for each in said if isinstance(each, Identity) for name in each.names)

    def scope(self, key: RouteKey, route: Route, told: frozenset[str] = frozenset()) -> Scope:
        """What the references of an effective route can reach. `told`: `told_names`."""
        scope = key.scope().including({"header": HeaderRoot(told)} if told else {})
        return scope if route.public else scope.including(PRINCIPAL)

    def check(self, at: Place) -> None:
        """What must hold between addresses, services, routes and the message broker."""
        _check_ports(self, at)
        for name, service in self.services.items():
            _check_service(self, name, service, at)
        for name, scheme in self.auth.items():
            _check_scheme(self, scheme, at.field("auth", name), at)
        if not self.routes and not at.field("routes").spoilt:
            at.mistake("there are no 'routes'; one looks like 'GET /users/{id}: {call: users, public: true}'")
        named: Named = {}
        taken = _check_issuer(self, self.issuer, named, at) if self.issuer is not None else {}
        for name, scheme in self.auth.items():
            if scheme.issuer and self.issuer is None and not at.field("issuer").spoilt:
                at.field("auth", name).mistake("there is no issuer; say who issues tokens at the top: 'issuer: ...'")
        told = self.told_names()
        _check_told(self, told, at)
        names_by_shape: dict[object, str] = {}
        for name, route in self.routes.items():
            place = at.field("routes", name)
            key = parse_key(name, place)
            if key is not None:
                if key.shape in taken:
                    other = f"'{taken[key.shape]}' in 'paths' of 'issuer'"
                    place.mistake(f"it matches the same requests as {other}; one of them needs another path")
                _check_unique(name, names_by_shape.setdefault(key.shape, name), place)
                effective = self.effective(route)
                scope = self.scope(key, effective, told)
                _compile_templates(route, scope, place)
                check_limits(effective, scope, place, named, public=bool(effective.public))
                _check_state(self, effective, at)
            _check_access(self, route, place, at)
            _check_authorization(self, route, key, place, at)
            _check_purpose(self, route, key, place, at)
        if not at.report.mistakes:
            _warn_of_ways_past(self, at)


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


def _check_state(document: Document, route: Route, at: Place) -> None:
    kept = document.state is not None or at.field("state").spoilt or document.limits.store == "redis"
    if route.quotas and not kept:
        at.mistake("a 'quota' is to outlive restarts: say where it is kept, such as 'state: /var/lib/castlegate'")


def _check_service(document: Document, name: str, service: Service, at: Place) -> None:
    place = at.field("services", name)
    if not _SERVICE_NAME.fullmatch(name):
        place.mistake("a service's name has letters, digits, '_' and '-', and begins with a letter")
    if service.kafka is not None:
        _check_kafka(document, place.field("kafka"), at)


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
    check_nobody(document.policies, document.defaults.policies, "the routes of 'issuer'", at.field("defaults", "policy"))
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
        _check_state(document, route, at)
        if name == "login":
            _check_login(document, said, key, place.field("login"), at)
    return taken


def _check_login(document: Document, said: Route, key: RouteKey, place: Place, at: Place) -> None:
    route = document.effective(said)
    if said.headers.response:
        place.field("headers", "response").mistake("what a client gets of a login is made by the gateway")
    _refuse(said, ("status", "reply"), "has no meaning for a login, whose answer is made by the gateway", place)
    _compile_templates(said, document.scope(key, route), place)
    if said.call is not None:
        _check_call(document, said.call, route, key, place, at)
    elif not place.field("call").spoilt:
        place.mistake("'call' is missing: the service that knows who has which credentials")


def _check_told(document: Document, told: frozenset[str], at: Place) -> None:
    """That nothing else says or reads what only the gateway says of callers."""
    reason = "under this name services are told who calls"
    for name, route in document.routes.items():
        for field in route.headers.request:
            if spelling(field) in told:
                at.field("routes", name, "headers", "request", field).mistake(f"{reason}; say it with 'identity'")
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


def merged(said: Any, default: Any) -> Any:
    """Of a section that merges inside, each of its own fields; else what is said, or the default."""
    if not isinstance(said, msgspec.Struct) or not isinstance(default, msgspec.Struct):
        return default if said is None else said
    return msgspec.structs.replace(
        said, **{name: getattr(default, name) for name in fields_of(type(said)) if getattr(said, name) is None}
    )


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
            where.field("auth").mistake(f"no scheme is called {show(name)}{hint}")


def _check_authorization(document: Document, said: Route, key: RouteKey | None, place: Place, at: Place) -> None:
    route = document.effective(said)
    where = (place if said.policy is not None else at.field("defaults")).field("policy")
    if route.public and not place.field("public").spoilt:
        check_public(said, place)
        check_nobody(document.policies, route.policies, "this route", place)
    if key is None:
        return
    for name in route.policies:
        policy = document.policies.get(name)
        if policy is not None:
            check_use(name, policy, key.params, place.field("policy") if said.policy is not None else place)
        elif not (where.spoilt or at.field("policies").spoilt or at.field("policies", name).spoilt):
            hint = suggest(name, document.policies, "there are") or "; there are none under 'policies'"
            where.mistake(f"no policy is called {show(name)}{hint}")


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
    if route.call is not None and route.publish is not None:
        place.mistake("both 'call' and 'publish' are said; a route does one of them")
    elif route.call is not None:
        _check_call(document, route.call, route, key, place, at)
    elif route.publish is not None:
        check_topic(route.publish, place.field("publish"))
        _check_kafka(document, place.field("publish"), at)
        _refuse(route, (*_HTTP_ONLY, "status", "reply"), "goes with 'call', not with 'publish'", place)
    elif not (place.field("call").spoilt or place.field("publish").spoilt):
        place.mistake("neither 'call' nor 'publish' is said; a route does one of them")


def _check_call(
    document: Document, call: str, route: CallSettings, key: RouteKey | None, place: Place, at: Place
) -> None:
    name, _, operation = call.partition(".")
    service = document.services.get(name)
    at_call = place.field("call")
    if service is None:
        if not (at.field("services").spoilt or at.field("services", name).spoilt):
            hint = suggest(name, document.services, "there are") or "; there are none under 'services'"
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


class Loaded(NamedTuple):
    """A document without mistakes. Further ones found while building it belong in the same report."""

    document: Document
    report: Report


def load(path: str | Path, variables: Mapping[str, str] = os.environ) -> Loaded:
    """Read a YAML file; raises `ConfigError` with every mistake in it. Needs no network."""
    path = Path(path)
    report = Report(path.parent)
    try:
        with path.open("rb") as file:
            content = file.read(LARGEST_FILE + 1)
    except OSError as error:
        report.add(None, (), f"{path}: cannot be read: {error.strerror}")
        raise ConfigError(report) from error
    root = compose(content, str(path), Environment(variables, path.parent), report)
    document = None if root is None else read(root, Document, report.place())
    if document is not None:
        validate(document, report.place())
    report.raise_if_any()
    assert document is not None, "a document that could not be read has mistakes"
    return Loaded(document, report)


def check(document: Document) -> Loaded:
    """The same for a document built in Python."""
    report = Report()
    validate(document, report.place())
    report.raise_if_any()
    return Loaded(document, report)

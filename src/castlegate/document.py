"""The root of the configuration: one field per feature, and what must hold between them.

The structs are what operators write in YAML and what Python programs build; `load` and `check` report every mistake of
either at once. What a value must fulfil on its own is checked by the struct that it stands in, beside its feature.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar, Literal, NamedTuple

import msgspec

from castlegate.agreement import check_agreement
from castlegate.calls.roots import PRINCIPAL
from castlegate.calls.settings import CallSettings
from castlegate.composition.settings import ComposeSettings
from castlegate.config.addresses import is_loopback, parse_address
from castlegate.config.environment import Environment
from castlegate.config.fields import spelling
from castlegate.config.joining import join
from castlegate.config.reading import read
from castlegate.config.references import HeaderRoot, QueryRoot, Scope
from castlegate.config.report import ConfigError, Place, Report, listed
from castlegate.config.shapes import fields_of
from castlegate.config.source import LARGEST_FILE, compose, resolve
from castlegate.config.units import Count, SecondsOrZero
from castlegate.config.validation import validate
from castlegate.edge.settings import Listen
from castlegate.edge.tls import EdgeTls
from castlegate.endpoints.settings import DEFAULT_TIMEOUT, PublishSettings, RouteBounds, RouteLimits
from castlegate.functions import check_functions
from castlegate.guards.breaker import BreakerSettings
from castlegate.guards.canary import CanarySettings
from castlegate.guards.concurrency import ConcurrencySettings
from castlegate.guards.hedge import HedgeSettings
from castlegate.guards.identity import Identity
from castlegate.guards.mirror import MirrorSettings
from castlegate.guards.retry import RepeatBudgetSettings, Retries
from castlegate.guards.settings import Repeats
from castlegate.issuer.settings import IssuerSettings
from castlegate.policies.addresses import AddressSettings
from castlegate.policies.authenticate import Access
from castlegate.policies.authorize import OF_CALLERS, Authorization
from castlegate.policies.cors import CorsSettings
from castlegate.policies.limits.settings import Limits, of_anybody
from castlegate.policies.named import NamedPolicy
from castlegate.policies.origin import OriginSettings
from castlegate.policies.secure import SecureSettings
from castlegate.policies.validate import ValidationSettings
from castlegate.python.settings import PythonSettings
from castlegate.routing.template import RouteKey
from castlegate.rules.ejection import Ejection, FractionOrZero
from castlegate.schemes.api_keys import Keys
from castlegate.schemes.authorizer import Authorizer
from castlegate.schemes.carrier import Carrier
from castlegate.schemes.certificate import ClientCertificate
from castlegate.schemes.introspection import Introspection
from castlegate.schemes.issued import Issued
from castlegate.schemes.jwt import Jwt
from castlegate.stores.settings import LimitStore
from castlegate.upstreams.http.health import Health
from castlegate.upstreams.http.settings import HttpService
from castlegate.upstreams.kafka.settings import Kafka, KafkaOperation, KafkaService

_LARGEST_LOGIN = 16 * 1024  # bytes, where its own limits say nothing
_LARGEST_REFRESH = 4 * 1024

_PANIC = 0.25

_REDACTED = (
    "access_token", "api_key", "apikey", "authorization", "client_secret", "code", "cookie", "id_token", "password",
    "refresh_token", "secret", "set-cookie", "sig", "signature", "token",
)  # fmt: skip

_ROUTE = """What is done with the requests of one route. Its key is `METHOD [HOST]/PATH`, such as `GET /orders/{id}`.

    `ANY` takes every method that has no route of its own; `{name}` is one segment of the path, `{name...}`, as the
    last one, all that follow. Every route says `call`, `compose` or `publish`, and who may call it.
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

_IN_ITS_KEY = "method and path are the key of a route, such as 'GET /orders/{id}'"
_NOT_IN_A_ROUTE = {
    "path": _IN_ITS_KEY,
    "method": _IN_ITS_KEY,
    "methods": _IN_ITS_KEY,
    "url": "where a service is reached is said in 'services', and a route names it: 'call: NAME'",
    "service": "write 'call: NAME', or 'call: NAME.OPERATION'",
}

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

    class Route(
        CallSettings,
        ComposeSettings,
        PublishSettings,
        Repeats,
        RouteDefaults,
        kw_only=True,
        frozen=True,
        forbid_unknown_fields=True,
    ):
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
    Route = join(
        "Route",
        CallSettings,
        ComposeSettings,
        PublishSettings,
        Repeats,
        *_GROUPS,
        module=__name__,
        doc=_ROUTE,
        elsewhere=_NOT_IN_A_ROUTE,
    )


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

    issuer: bool | Issued | None = None
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
    def carrier(self) -> Carrier | None:
        """Where in a request its credential stands, if it is in there."""
        said = next((each for name in fields_of(Scheme) if (each := getattr(self, name)) is not None), None)
        return Issued().carrier if said is True else getattr(said, "carrier", None)

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
    retry: Retries | None = None
    """When a call that failed is tried again."""
    repeats: RepeatBudgetSettings = RepeatBudgetSettings()
    """How much of its calls may be repetitions."""
    breaker: BreakerSettings | None = None
    """When it is left alone, because too many calls of it fail."""
    concurrency: ConcurrencySettings | None = None
    """How many calls of it may be under way at once."""
    hedge: HedgeSettings | None = None
    """When a slow call is asked of another instance as well."""
    health: Health | None = None
    """How its instances are asked whether they are well."""
    ejection: Ejection | Literal["off"] = Ejection()
    """When an instance is taken out because calls fail on it. A service with one instance alone needs none."""
    panic: FractionOrZero = _PANIC
    """Where less than this share of the instances is well, all are called that are not drained and whose breaker is not
    open: the few would not bear what is meant for all."""
    canary: CanarySettings | None = None
    """A share of its calls goes to another service, a new version."""
    mirror: MirrorSettings | None = None
    """Copies of its calls go to another service, whose answers nobody gets."""

    @staticmethod
    def meant(texts: list[str]) -> str:
        """Where it is reached alone."""
        urls = all(text.startswith(("http://", "https://")) for text in texts)
        return f"write {{http: [{', '.join(texts)}]}}" if urls else ""

    def check(self, at: Place) -> None:
        """One protocol."""
        if self.kafka is not None:
            for name, said in (
                ("health", self.health is not None),
                ("ejection", self.ejection != Ejection()),
                ("panic", self.panic != _PANIC),
            ):
                if said and not at.field(name).spoilt:
                    at.field(name).mistake("it is about the instances of a service that speaks HTTP")
        if self.http is not None and self.kafka is not None:
            at.mistake("both 'http' and 'kafka' are said; a service speaks one of them")
        elif self.http is None and self.kafka is None and not (at.field("http").spoilt or at.field("kafka").spoilt):
            at.mistake("neither 'http' nor 'kafka' is said; a service speaks one of them")


class Admin(msgspec.Struct, kw_only=True, frozen=True, forbid_unknown_fields=True):
    """Where operators look: `/health`, `/ready`, `/metrics`, and for who proves to be one `/workers`, `/services` and
    `/reload`.

    A plain `host:port` stands for `address` alone.
    """

    short: ClassVar[str] = "address"

    address: str = "127.0.0.1:9901"
    """`host:port`. Not to be reached by clients: probes and metrics ask nobody who they are."""
    token: str | None = None
    """What operators send as `Authorization: Bearer ...` for everything but probes and metrics. Without it, and without
    `tls.clients`, these are served on loopback only. From the environment or a file: `${ADMIN_TOKEN}`,
    `${file:/run/secrets/admin}`."""
    tls: EdgeTls | None = None
    """Speak TLS, and nothing else, on this address. A certificate that `clients` has verified stands for the token."""

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
        """Whether a token or a certificate is asked for, rather than nothing: off loopback there is no other way."""
        certified = self.tls is not None and self.tls.clients is not None
        return certified or self.token is not None or not is_loopback(parse_address(self.address)[0])


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
    python: PythonSettings = PythonSettings()
    """Bounds on functions in Python."""
    state: str | None = None
    """A folder of this instance alone, for what must outlive a restart: what is used of quotas, written every second in
    the background and when the gateway stops, so that a crash forgets a second at most. Only a restart changes it."""
    limit_store: LimitStore = LimitStore()
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

    @property
    def worker_count(self) -> int:
        """How many `auto` is: one for each processor that this process may use."""
        if isinstance(self.workers, int):
            return self.workers
        return len(os.sched_getaffinity(0)) if sys.platform == "linux" else os.cpu_count() or 1

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
                default = getattr(self.defaults, name)
                if default is not None and (
                    (said := getattr(route, name)) is None or getattr(type(said), "merges", False)
                ):
                    missing[name] = merged(said, default)
        if missing.get("public", route.public):  # callers are not known there
            missing |= {name: getattr(route, name) for name in OF_CALLERS}
            missing |= {name: of_anybody(missing[name]) for name in fields_of(Limits) if name in missing}
        return msgspec.structs.replace(route, **missing)

    def timeout(self, said: Route) -> float:
        """Seconds that a route has: as it says itself, else its operation, else `defaults`."""
        operation = None if said.call is None else self.operation(said.call)
        of_operation = None if operation is None else operation.timeout
        return said.timeout or of_operation or self.defaults.timeout or DEFAULT_TIMEOUT

    def operation(self, call: str) -> KafkaOperation | None:
        """What is said of `service.operation`, if it is behind Kafka and anything is said."""
        name, _, operation = call.partition(".")
        service = self.services.get(name)
        return None if service is None or service.kafka is None else service.kafka.operations.get(operation)

    @property
    def redacted(self) -> list[str]:
        """Names whose values the access log does not write."""
        carried = [name for scheme in self.auth.values() for name in scheme.secret_parameters]
        return [*self.access_log.redact, *carried]

    def ejection_of(self, service: str) -> Ejection | None:
        """How a service's instances are judged, if they are."""
        said = self.services[service].ejection
        return None if said == "off" else said

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
        fields = dict.fromkeys(told, "under this name services are told who calls")
        parameters: dict[str, str] = {}
        for name, carrier in self.withheld(route):
            why = f"'{name}' takes out what it has accepted; say 'forward: true' there if services need it"
            fields |= {spelling(field): why for field in carrier.fields}
            parameters |= dict.fromkeys(carrier.secret_parameters, why)
        scope = key.scope().including({"header": HeaderRoot(fields), "query": QueryRoot(parameters)})
        return scope if route.public else scope.including(PRINCIPAL)

    def withheld(self, route: Route) -> list[tuple[str, Carrier]]:
        """By which of its schemes what an effective route's callers show is taken out, and from where."""
        carriers = [(name, self.auth[name].carrier) for name in route.schemes if name in self.auth]
        return [(name, carrier) for name, carrier in carriers if carrier is not None and not carrier.forward]

    def check(self, at: Place) -> None:
        """What must hold between addresses, services, routes and the message broker."""
        check_agreement(self, at)
        check_functions(self, at)


def merged(said: Any, default: Any) -> Any:
    """Of a section that merges inside, each of its own fields; else what is said, or the default."""
    if not isinstance(said, msgspec.Struct) or not isinstance(default, msgspec.Struct):
        return default if said is None else said
    return msgspec.structs.replace(
        said, **{name: getattr(default, name) for name in fields_of(type(said)) if getattr(said, name) is None}
    )


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

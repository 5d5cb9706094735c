"""What a function's signature says: where each parameter comes from, of which type it is, which services are called.

    NAME: Context                       the request and the services
    NAME: Principal, Principal | None   who calls
    NAME: Service, Annotated[Service, "orders.get"]
    body: T                             the body as JSON; `bytes`: as it came
    NAME: Annotated[T, Header("x-tenant")]
    NAME: T                             a placeholder of the route's path of this name, else a parameter of the query

A parameter with a default may be missing in the request. Types are those that msgspec knows.
"""

from __future__ import annotations

import inspect
import types
from collections.abc import Callable, Collection, Mapping
from typing import Annotated, Any, Literal, NamedTuple, Union, get_args, get_origin, get_type_hints

import msgspec

from castlegate.config.references import query_parameters
from castlegate.errors import Kinds, RequestRefused
from castlegate.message import Call
from castlegate.principal import Principal
from castlegate.python.context import Context, Service
from castlegate.python.mistakes import BodyMistakes, Mistake, mistake, refusal

Place = Literal["path", "query", "header", "body"]
Schema = dict[str, Any]

_NO_DEFAULT: Any = inspect.Parameter.empty
_LISTS = (list, set, frozenset, tuple)
_KINDS = (inspect.Parameter.POSITIONAL_OR_KEYWORD, inspect.Parameter.KEYWORD_ONLY)


class Unusable(Exception):
    """A function cannot be used; says why."""


class Header(NamedTuple):
    """Says of a parameter that it is a field of the request."""

    name: str


class Input(NamedTuple):
    """A parameter that is read from the request."""

    name: str
    place: Place
    key: str
    """How it is called there."""
    type: Any
    default: Any
    many: bool
    """Whether it takes every value of a query's parameter."""

    @property
    def required(self) -> bool:
        """Whether the request must have it."""
        return self.default is _NO_DEFAULT


class Signature(NamedTuple):
    """Of one function on one route."""

    function: Callable[..., Any]
    asynchronous: bool
    inputs: list[Input]
    contexts: list[str]
    principals: dict[str, bool]
    """Parameters for who calls, and whether nobody may call."""
    services: dict[str, str]
    """Parameters for services, and what each calls."""
    returns: Any

    def describe(self) -> list[str]:
        """The inputs, for people."""
        words = {"path": "{} of the path", "query": "{} of the query", "header": "the field {}", "body": "the body"}
        return [words[each.place].format(each.key) for each in self.inputs]

    def openapi(self) -> Schema:
        """The operation's object of an OpenAPI document (3.1), and its `components` beside it."""
        template = "#/components/schemas/{name}"
        said = [each.type for each in self.inputs]
        answers = self.returns not in (type(None), _NO_DEFAULT) and _schema_of(self.returns) is not None
        schemas, components = msgspec.json.schema_components(
            [*said, *([self.returns] if answers else [])], ref_template=template
        )
        parameters, operation = [], Schema(operationId=self.function.__name__)
        if self.function.__doc__:
            operation["summary"] = inspect.cleandoc(self.function.__doc__).split("\n")[0]
        for each, schema in zip(self.inputs, schemas, strict=False):
            if each.place != "body":
                told = {"name": each.key, "in": each.place, "required": each.required, "schema": schema}
                parameters.append(told)
            elif each.type is bytes:
                content: Schema = {"application/octet-stream": {}}
                operation["requestBody"] = {"required": each.required, "content": content}
            else:
                content = {"application/json": {"schema": schema}}
                operation["requestBody"] = {"required": each.required, "content": content}
        if parameters:
            operation["parameters"] = parameters
        success: Schema = {"description": "The answer"}
        if answers:
            success["content"] = {"application/json": {"schema": schemas[-1]}}
        operation["responses"] = {"204" if self.returns is type(None) else "200": success}
        if self.inputs:
            operation["responses"]["400"] = {"description": "The request does not fit", "content": _PROBLEM}
        return {"operation": operation, "components": {"schemas": components}}


_PROBLEM: Schema = {"application/problem+json": {}}


def read_signature(function: Any, params: Collection[str]) -> Signature:
    """`params` are the placeholders of the route's path. Raises `Unusable`."""
    found = Signature(function, is_asynchronous(function), [], [], {}, {}, _NO_DEFAULT)
    hints = hints_of(function)
    for name, parameter in parameters_of(function).items():
        hint = hints[name]
        plain, notes = _apart(hint)
        if plain is Context:
            found.contexts.append(name)
        elif plain is Principal or _is_optional(plain, Principal):
            found.principals[name] = plain is not Principal
        elif plain is Service:
            found.services[name] = next((note for note in notes if isinstance(note, str)), name)
        else:
            found.inputs.append(_input(name, hint, parameter.default, params))
    return found._replace(returns=hints.get("return", _NO_DEFAULT))


def is_asynchronous(function: Any) -> bool:
    """Whether calling it gives a coroutine, also where a decorator is around it that says what it wraps."""
    return inspect.iscoroutinefunction(inspect.unwrap(function))


def hints_of(function: Any) -> dict[str, Any]:
    """The types of a function's parameters, each of which must have one. Raises `Unusable`."""
    parameters = parameters_of(function)
    try:
        hints = get_type_hints(function, include_extras=True)
    except Exception as error:
        raise Unusable(f"its types cannot be read: {type(error).__name__}: {error}") from error
    for name in parameters:
        if name not in hints:
            raise Unusable(f"its parameter '{name}' has no type")
    return hints


def parameters_of(function: Any) -> Mapping[str, inspect.Parameter]:
    """A function's parameters, all of which can be given by name. Raises `Unusable`."""
    if not inspect.isfunction(function):
        raise Unusable(f"it is no function ({type(function).__name__})")
    if inspect.isasyncgenfunction(function) or inspect.isgeneratorfunction(function):
        raise Unusable("it is a generator; return a list")
    parameters = inspect.signature(function).parameters
    for name, parameter in parameters.items():
        if parameter.kind not in _KINDS:
            raise Unusable(f"its parameter '{name}' cannot be given by name")
    return parameters


def arguments(signature: Signature, call: Call, context: Context, bodies: BodyMistakes | None) -> dict[str, Any]:
    """What a function is called with. Raises `RequestRefused` with all that is wrong with the request."""
    given: dict[str, Any] = dict.fromkeys(signature.contexts, context)
    principal = call.request.principal
    for name, nobody in signature.principals.items():
        if principal is None and not nobody:
            raise RequestRefused(Kinds.UNAUTHORIZED, "There is no credential in the request.")
        given[name] = principal
    for name, service in signature.services.items():
        given[name] = Service(context, service)
    mistakes: list[Mistake] = []
    for each in signature.inputs:
        try:
            if each.place == "body":
                _body(each, call, given, mistakes, bodies)
            else:
                _text(each, call, given, mistakes)
        except msgspec.ValidationError as error:
            mistakes.append(mistake(each.place, f"/{each.key}", str(error)))
    if mistakes:
        raise refusal(mistakes)
    return given


def _text(each: Input, call: Call, given: dict[str, Any], mistakes: list[Mistake]) -> None:
    request = call.request
    value: Any
    if each.place == "path":
        value = request.params.get(each.key)
    elif each.place == "header":
        field = call.headers.get(each.key.encode())
        value = None if field is None else field.decode("latin-1")
    else:
        values = query_parameters(request.query).get(each.key)
        value = None if values is None else values if each.many else values[0]
        if values is not None and len(values) > 1 and not each.many:
            mistakes.append(mistake(each.place, f"/{each.key}", "it is there more than once"))
            return
    if value is not None:
        given[each.name] = value if each.type is str else msgspec.convert(value, each.type, strict=False)
    elif each.required:
        mistakes.append(mistake(each.place, f"/{each.key}", "it is missing"))


def _body(each: Input, call: Call, given: dict[str, Any], mistakes: list[Mistake], bodies: BodyMistakes | None) -> None:
    body = call.body
    assert isinstance(body, bytes), "the endpoint buffers what functions get"
    if each.type is bytes:
        given[each.name] = body
        return
    if not body:
        if each.required:
            mistakes.append(mistake("body", "", "it is missing"))
        return
    assert bodies is not None
    value = bodies.read(body, mistakes)
    given[each.name] = value


def body_mistakes(signature: Signature) -> BodyMistakes | None:
    """What reads the bodies of a function that wants JSON."""
    wanted = [each.type for each in signature.inputs if each.place == "body" and each.type is not bytes]
    return BodyMistakes(wanted[0]) if wanted else None


def _input(name: str, hint: Any, default: Any, params: Collection[str]) -> Input:
    plain, notes = _apart(hint)
    header = next((note for note in notes if isinstance(note, Header)), None)
    if header is not None:
        left = tuple(note for note in notes if note is not header)
        hint = Annotated[(plain, *left)] if left else plain
    place: Place = "header" if header else "body" if name == "body" else "path" if name in params else "query"
    schema = _schema_of(hint)
    if schema is None:
        raise Unusable(f"the type of its parameter '{name}' is none that can be read from a request: {_shown(hint)}")
    if place != "body" and _is_object(schema):
        raise Unusable(f"its parameter '{name}' is an object, which only 'body' can be")
    many = place == "query" and _takes_many(plain)
    return Input(name, place, name if header is None else header.name.lower(), hint, default, many)


def _schema_of(hint: Any) -> Schema | None:
    try:
        return msgspec.json.schema(hint)
    except (TypeError, NotImplementedError):
        return None


def _is_object(schema: Schema) -> bool:
    named = schema.get("$defs", {}).get(schema.get("$ref", "").rpartition("/")[2], schema)
    return any(_is_object(each) for each in schema.get("anyOf", ())) or named.get("type") == "object"


def _apart(hint: Any) -> tuple[Any, tuple[Any, ...]]:
    if get_origin(hint) is Annotated:
        plain, *notes = get_args(hint)
        return plain, tuple(notes)
    return hint, ()


def _takes_many(hint: Any) -> bool:
    if get_origin(hint) in (Union, types.UnionType):
        return any(_takes_many(each) for each in get_args(hint))
    return get_origin(hint) in _LISTS or hint in _LISTS


def _is_optional(hint: Any, kind: type) -> bool:
    return get_origin(hint) in (Union, types.UnionType) and set(get_args(hint)) == {kind, type(None)}


def _shown(hint: Any) -> str:
    return getattr(hint, "__name__", None) or str(hint)

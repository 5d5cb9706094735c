"""`castlegate key`: makes, lists and revokes API keys."""

from __future__ import annotations

import os
import re
import sys
import time
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import NoReturn

import click
import msgspec

from castlegate.config.report import ConfigError
from castlegate.config.shapes import shape_of
from castlegate.config.source import resolve
from castlegate.config.units import Seconds
from castlegate.schemes.api_key import ID, new_id
from castlegate.schemes.key_editing import NotChanged, add, make, read_keys, revoke
from castlegate.schemes.key_file import LIMIT, Key, Line, unix_time

_SCOPE = re.compile(r"[!#-\[\]-~]+")  # RFC 6749 §3.3

_FILE = click.argument("file", type=click.Path(path_type=Path, dir_okay=False))


@click.group(name="key")
def keys() -> None:
    """Make, list and revoke API keys.

    FILE holds the hashes of the keys that are given out, one key a line, and is what `keys` of a scheme under `auth`
    names. Running gateways take a change of it within seconds.
    """


@keys.command()
@_FILE
@click.option("--owner", metavar="NAME", required=True, help="Whose it is: the subject that services see.")
@click.option("--scope", "scopes", metavar="SCOPE", multiple=True, help="What it may do; once for each.")
@click.option("--claim", "claims", metavar="NAME=VALUE", multiple=True, help="More about the owner; JSON or text.")
@click.option("--limit", metavar="LIMIT", help="How often, such as 100/min; see below.")
@click.option("--expires", metavar="WHEN", help="A date (2027-01-31), a time, or from now on: 90d.")
@click.option("--id", "identity", metavar="ID", help="Its name in logs and lists; without it, a random one.")
def new(
    file: Path,
    owner: str,
    scopes: tuple[str, ...],
    claims: tuple[str, ...],
    limit: str | None,
    expires: str | None,
    identity: str | None,
) -> None:
    """Make a key and add its hash to FILE.

    The key itself is printed on standard output, once: it is kept nowhere. What was added to FILE is shown on standard
    error. FILE is made if it is not there; `-` leaves it to you to paste the line.

    A LIMIT holds on routes that say so, in place of theirs: `limit: {rate: 10/s, per: key, own: true}`, which is 10/s
    for keys without one.

    \b
    Exit status:
      0  the key is in FILE
      1  FILE cannot be changed
      2  a mistake in FILE, or in what was asked for
    """
    if not owner:
        raise click.BadParameter("expected whose the key is, found nothing", param_hint="--owner")
    for scope in scopes:
        _check_scope(scope)
    _check_limit(limit)
    _check_id(identity)
    told = dict(map(_claim, claims))
    described = Key(owner=owner, scopes=list(scopes), claims=told, limit=limit, expires=_expiry(expires), hash="")
    try:
        if str(file) == "-":
            key, line = make(identity or new_id(), described)
        else:
            key, line = add(file, identity, described)
    except ConfigError as error:
        _fail(str(error), 2)
    except (NotChanged, OSError, ValueError) as error:
        _fail(_why_not(file, error), 1)
    click.echo(key)
    where = "paste this line into the file of keys" if str(file) == "-" else f"added to {file}"
    click.echo(f"This is the only time that the key is shown. {where[0].upper()}{where[1:]}:\n\n{line}", err=True)


@keys.command(name="list")
@_FILE
@click.option("--json", "as_json", is_flag=True, help="Print one JSON document instead of text.")
def list_keys(file: Path, as_json: bool) -> None:
    """Show the keys in FILE: whose they are, what they may do, and whether they can be used."""
    lines = _read(file)
    if as_json:
        told = []
        for line in lines:
            key = msgspec.to_builtins(line.key)
            del key["hash"]
            told.append({"id": line.id, "state": _state(line), **key})
        click.echo(msgspec.json.format(msgspec.json.encode(told), indent=2).decode())
        return
    rows = [("ID", "OWNER", "STATE", "EXPIRES", "LIMIT", "SCOPES")]
    for line in lines:
        known = line.key
        scopes = " ".join(known.scopes) or "-"
        rows.append((line.id, known.owner, _state(line), known.expires or "-", known.limit or "-", scopes))
    widths = [max(len(row[column]) for row in rows) for column in range(len(rows[0]))]
    for row in rows:
        click.echo("  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip())


@keys.command(name="revoke")
@_FILE
@click.argument("identity", metavar="ID")
def revoke_key(file: Path, identity: str) -> None:
    """Have the key ID refused from now on.

    It stays in FILE, marked as revoked, so that who still uses it can be told. The id is the middle part of a key, and
    what `list` shows.

    \b
    Exit status:
      0  it is revoked
      1  there is no such key, or FILE cannot be changed
      2  a mistake in FILE
    """
    try:
        revoke(file, identity)
    except ConfigError as error:
        _fail(str(error), 2)
    except (NotChanged, OSError, ValueError) as error:
        _fail(_why_not(file, error), 1)
    click.echo(f"{identity} is revoked in {file}")


def _read(file: Path) -> list[Line]:
    try:
        return list(read_keys(file).entries.values())
    except ConfigError as error:
        _fail(str(error), 2)
    except (OSError, ValueError) as error:
        _fail(_why_not(file, error), 1)


def _state(line: Line) -> str:
    if line.key.revoked is not None:
        return "revoked"
    return "expired" if time.time() >= line.expires else "good"


def _claim(text: str) -> tuple[str, object]:
    name, equals, value = text.partition("=")
    if not name or not equals:
        raise click.BadParameter(f"expected NAME=VALUE, found '{text}'", param_hint="--claim")
    if name == "limit":
        raise click.BadParameter("how often a key may be used is said with --limit", param_hint="--claim")
    try:
        return name, msgspec.json.decode(value)
    except (msgspec.DecodeError, RecursionError):
        return name, value


def _expiry(text: str | None) -> str | None:
    """A span is turned into the time when it is over."""
    unit = shape_of(Seconds).unit
    assert unit is not None
    if text is None:
        return None
    try:
        span = unit.parse(text)
    except ValueError:
        _check_expiry(text)
        return text
    return (datetime.now(UTC) + timedelta(seconds=span)).strftime("%Y-%m-%dT%H:%M:%SZ")


def _check_expiry(text: str) -> None:
    try:
        over = unix_time(text) <= time.time()
    except ValueError as error:
        raise click.BadParameter(f"{error}, or a span from now on such as 90d", param_hint="--expires") from error
    if over:
        raise click.BadParameter(f"{text} has passed; the key could never be used", param_hint="--expires")


def _check_scope(scope: str) -> None:
    words = scope.split()
    if len(words) > 1:
        instead = " ".join(f"--scope {word}" for word in words)
        raise click.BadParameter(f"a scope is one word, found '{scope}'; write {instead}", param_hint="--scope")
    if not _SCOPE.fullmatch(scope):
        raise click.BadParameter(f"expected a word such as orders:read, found '{scope}'", param_hint="--scope")


def _check_limit(limit: str | None) -> None:
    if limit is not None and not LIMIT.fullmatch(limit):
        forms = "a number and for how long it counts: 100/min, 10/s, 5000/d or 30/10min"
        raise click.BadParameter(f"expected {forms}; found '{limit}'", param_hint="--limit")


def _check_id(identity: str | None) -> None:
    if identity is None:
        return
    instead = "or leave it out for a random one"
    if not ID.fullmatch(identity):
        form = "letters, digits and hyphens between them, at most 64, such as acme-2"
        raise click.BadParameter(f"expected {form}, {instead}; found '{identity}'", param_hint="--id")
    if not isinstance(resolve(identity), str):
        wanted = f"expected a name, which '{identity}' is not in YAML"
        raise click.BadParameter(f"{wanted}; write k-{identity}, {instead}", param_hint="--id")


def _why_not(file: Path, error: Exception) -> str:
    """What is wrong with the file, and what helps."""
    if not isinstance(error, OSError):
        return f"{file}: {error}"
    folder = file.resolve().parent
    if not folder.is_dir():
        return f"{file}: there is no folder '{folder}'; make it, or name another file"
    if isinstance(error, FileNotFoundError) and Path(error.filename).name == file.name:
        return f"{file}: there is no such file; 'castlegate key new {file} --owner NAME' makes one"
    if isinstance(error, PermissionError):
        who = f"user {os.geteuid()}"
        return f"{file}: {error.strerror}: {who} must be able to write to '{folder}', since the file is replaced whole"
    return f"{file}: {error.strerror or error}"


def _fail(text: str, status: int) -> NoReturn:
    click.echo(text, err=True)
    sys.exit(status)

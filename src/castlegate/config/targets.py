"""Path-and-query templates such as `/users/{path.user}?page={query.page?}`, in which every value keeps its place.

A value in the path stays inside its segment: it is percent-encoded, `/` included, and refused where a server that
decodes again could take it for a way up. Only a wildcard's value spans segments: it is spliced in as it stands in the
request's normalised path. A value in the query stays one value; a pair that is nothing but an optional reference is
left out when that is missing, and repeated for each value of a `[]` reference.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from urllib.parse import quote, unquote

from castlegate.config.references import MISSING, Parts, Reference
from castlegate.config.report import Place, show
from castlegate.message import Request

Render = Callable[[Request, Parts], bytes]
Pieces = list[str | Reference]

_HARMLESS = re.compile(r"[A-Za-z0-9_~-]+")
_WAY_UP = re.compile(r"(?:^|[/\\])\.{1,2}(?:$|[/\\;])")
_NEVER = re.compile(r"[\x00-\x1f\x7f\\]")  # some servers read a backslash as a slash, however it is written
_PATH_TEXT = re.compile(r"(?:[A-Za-z0-9._~!$&'()*+,;=:@/-]|%[0-9A-Fa-f]{2})*")
_QUERY_TEXT = re.compile(r"(?:[A-Za-z0-9._~!$&'()*+,;=:@/?-]|%[0-9A-Fa-f]{2})*")


def compile_target(pieces: Pieces, at: Place) -> Render | None:
    """The function that renders it; after a mistake, None."""
    path, query = _split_query(pieces)
    sound = _check_text(path, _PATH_TEXT, at) & _check_text(query or [], _QUERY_TEXT, at)
    if not path or not isinstance(path[0], str) or not path[0].startswith("/"):
        at.mistake("a path begins with '/', such as '/users/{path.id}'")
        return None
    chunks = _path_chunks(path, at)
    if chunks is None or not sound:
        return None
    render = _joined(chunks)
    if query is None:
        return render
    pairs = [_pair(pair) for pair in _cut(query, "&")]

    def with_query(request: Request, parts: Parts) -> bytes:
        found = [text for pair in pairs for text in pair(request, parts)]
        return render(request, parts) + b"?" + b"&".join(found) if found else render(request, parts)

    return with_query


def check_prefix(prefix: str, at: Place) -> None:
    """Report what keeps a plain prefix such as `/api` from being one of paths."""
    if not prefix.startswith("/"):
        at.mistake(f"expected a path such as '/api', found {at.shown(prefix)}")
    elif prefix.endswith("/"):
        at.mistake(f"expected a path without a slash at its end, found {at.shown(prefix)}")
    elif _check_text([prefix], _PATH_TEXT, at):
        _path_chunks([prefix], at)


def _split_query(pieces: Pieces) -> tuple[Pieces, Pieces | None]:
    """What stands before and after the first `?` of the text."""
    for index, piece in enumerate(pieces):
        if isinstance(piece, str) and "?" in piece:
            before, _, after = piece.partition("?")
            path: Pieces = [*pieces[:index], before] if before else pieces[:index]
            query: Pieces = [after, *pieces[index + 1 :]] if after else pieces[index + 1 :]
            return path, query
    return pieces, None


def _check_text(pieces: Pieces, allowed: re.Pattern[str], at: Place) -> bool:
    """Whether the literal pieces may stand in a URL as they are."""
    sound = True
    for piece in pieces:
        if isinstance(piece, str) and not allowed.fullmatch(piece):
            index = next(index for index in range(len(piece)) if not allowed.fullmatch(piece[: index + 1] + "00"))
            character = piece[index]
            at.mistake(f"'{character}' cannot stand in a URL as it is; write {quote(character, safe='')}")
            sound = False
    return sound


def _cut(pieces: Pieces, separator: str) -> list[Pieces]:
    """The pieces between separators."""
    groups: list[Pieces] = [[]]
    for piece in pieces:
        if isinstance(piece, Reference):
            groups[-1].append(piece)
            continue
        for index, text in enumerate(piece.split(separator)):
            if index:
                groups.append([])
            if text:
                groups[-1].append(text)
    return groups


def _path_chunks(pieces: Pieces, at: Place) -> list[bytes | Render] | None:
    """Constant bytes and functions in turn, which make up the path."""
    chunks: list[bytes | Render] = []
    sound = True
    segments = _cut(pieces, "/")[1:]
    for index, segment in enumerate(segments):
        chunks.append(b"/")
        if all(isinstance(piece, str) for piece in segment):
            text = "".join(map(str, segment))
            if text in (".", "..") or (not text and index < len(segments) - 1):
                at.mistake(f"the path has {show(text)} as a segment; write it without" if text else "'//' in the path")
                sound = False
            chunks.append(text.encode())
            continue
        wildcard = next((piece for piece in segment if isinstance(piece, Reference) and piece.rest), None)
        if wildcard is None:
            chunks.append(_segment(segment))
        elif len(segment) > 1 or index < len(segments) - 1:
            at.mistake(f"'{{{wildcard.name}}}' stands for the rest of a path, so it must be all of the last segment")
            sound = False
        else:
            chunks.append(_wildcard(wildcard))
    return chunks if sound else None


def _wildcard(reference: Reference) -> Render:
    rest = reference.rest
    assert rest is not None
    return lambda request, _parts: rest(request)


def _segment(pieces: Pieces) -> Render:
    if len(pieces) == 1 and isinstance(pieces[0], Reference):
        reference = pieces[0]

        def lone(request: Request, parts: Parts) -> bytes:
            value = reference.text(request, parts)
            return value.encode() if _HARMLESS.fullmatch(value) else _quoted(value, value, reference)

        return lone

    plain = [(unquote(piece), None) if isinstance(piece, str) else ("", piece) for piece in pieces]

    def mixed(request: Request, parts: Parts) -> bytes:
        texts = [text if piece is None else piece.text(request, parts) for text, piece in plain]
        whole = "".join(texts)
        encoded = [
            piece.encode() if isinstance(piece, str) else _quoted(text, whole, piece)
            for piece, text in zip(pieces, texts, strict=True)
        ]
        return b"".join(encoded)

    return mixed


def _quoted(value: str, segment: str, reference: Reference) -> bytes:
    """`value` encoded as (a part of) a segment; refused where the segment would not stay one."""
    if not segment or _NEVER.search(value) or _WAY_UP.search(segment):
        raise reference.refusal(f"{reference.name} cannot stand in a path.")
    return quote(value, safe="").encode()


def _pair(pieces: Pieces) -> Callable[[Request, Parts], list[bytes]]:
    """A `name=value` of the query."""
    references = [piece for piece in pieces if isinstance(piece, Reference)]
    if not references:
        text = "".join(map(str, pieces)).encode()
        return lambda _request, _parts: [text] if text else []
    first = pieces[0]
    if len(references) > 1 or not isinstance(first, str) or len(pieces) > 2 or not first.endswith("="):
        return lambda request, parts: [b"".join([_query_piece(piece, request, parts) for piece in pieces])]
    reference, prefix = references[0], first.encode()

    def lone(request: Request, parts: Parts) -> list[bytes]:
        value = reference.value(request, parts)
        if value is MISSING:
            return []
        values = value if isinstance(value, list) else [value]
        return [prefix + _component(reference.single(each)) for each in values]

    return lone


def _query_piece(piece: str | Reference, request: Request, parts: Parts) -> bytes:
    return piece.encode() if isinstance(piece, str) else _component(piece.text(request, parts))


def _component(value: str) -> bytes:
    return value.encode() if _HARMLESS.fullmatch(value) else quote(value, safe="").encode()


def _joined(chunks: list[bytes | Render]) -> Render:
    """Chunks joined, with as few steps a call as there are values."""
    merged: list[bytes | Render] = []
    for chunk in chunks:
        if isinstance(chunk, bytes) and merged and isinstance(merged[-1], bytes):
            merged[-1] += chunk
        else:
            merged.append(chunk)
    if len(merged) == 2 and isinstance(merged[0], bytes) and not isinstance(merged[1], bytes):
        prefix, value = merged[0], merged[1]
        return lambda request, parts: prefix + value(request, parts)
    return lambda request, parts: b"".join(
        [chunk if isinstance(chunk, bytes) else chunk(request, parts) for chunk in merged]
    )

"""What this machine must offer: open files, addresses to listen on, a place for the log; and versions."""

from __future__ import annotations

import asyncio
import json
import os
import platform
import resource
import socket
import ssl
import stat
from importlib.metadata import version
from pathlib import Path

import confluent_kafka

from castlegate import __version__
from castlegate.config.addresses import parse_address
from castlegate.doctor.findings import Finding
from castlegate.document import Document

_OTHERS = 64  # descriptors for log, loop, brokers and libraries


def versions() -> Finding:
    """Of what is installed here."""
    says = (
        f"castlegate {__version__}, Python {platform.python_version()}, uvloop {version('uvloop')}, "
        f"confluent-kafka {confluent_kafka.version()}, librdkafka {confluent_kafka.libversion()[0]}"
    )
    return Finding("versions", "well", says)


def descriptors(document: Document) -> Finding:
    """Whether `connections` fits into what the system allows; workers raise the soft limit to the hard one."""
    check = "open files"
    _, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    connections = document.listen.limits.connections
    if hard == resource.RLIM_INFINITY:
        return Finding(check, "well", "no limit")
    advice = "raise it: LimitNOFILE= in a systemd unit, --ulimit nofile= of a container, or ulimit -n"
    if hard < connections + _OTHERS:
        says = f"{hard} are allowed, fewer than 'connections: {connections}' of 'listen' can need"
        return Finding(check, "wrong", says, f"{advice}; or lower 'connections'")
    services = [service.http for service in document.services.values() if service.http is not None]
    behind = sum(service.pool.connections * len(service.instances) for service in services)
    if hard < connections + behind + _OTHERS:
        says = f"{hard} are allowed: enough for {connections} clients, not with {behind} connections to services too"
        return Finding(check, "note", says, advice)
    return Finding(check, "well", f"{hard} are allowed, for at most {connections} clients")


def access_log(document: Document) -> Finding:
    """Whether the log could be appended to; nothing is created."""
    check, path = "access log", document.access_log.path
    if path in ("stdout", "off"):
        return Finding(check, "well", path)
    target = Path(path) if os.path.lexists(path) else Path(path).absolute().parent
    try:
        mode = target.stat().st_mode
    except OSError as error:
        return Finding(check, "wrong", f"{target}: {error.strerror}", f"create the folder {target}")
    if target == Path(path) and stat.S_ISDIR(mode):
        return Finding(check, "wrong", f"{path} is a folder", "name a file in it")
    if not os.access(target, os.W_OK):
        who = f"user {os.geteuid()}"
        return Finding(check, "wrong", f"{target} cannot be written by {who}", f"give {who} the right to write there")
    return Finding(check, "well", f"{path} can be written")


async def ports(document: Document, within: float) -> list[Finding]:
    """Whether the addresses are free, or taken by a gateway that runs already."""
    found = []
    running: str | None = None
    addresses = {"admin": document.admin.address, "listen": document.listen.address}
    for name, address in addresses.items():
        reason = _refusal(address)
        if reason is None:
            free = "takes any free port" if parse_address(address)[1] == 0 else f"{address} is free"
            found.append(Finding(name, "well", free))
            continue
        if name == "admin":
            running = await _readiness(address, within, encrypted=document.admin.tls is not None)
        if running is not None:
            found.append(Finding(name, "note", f"{address} is in use by a gateway that runs already, {running}"))
            continue
        port = parse_address(address)[1]
        advice = (
            "take an address of this machine" if "assign" in reason else f"see who has it: ss -ltnp sport = :{port}"
        )
        found.append(Finding(name, "wrong", f"{address} cannot be listened on: {reason}", advice))
    return found[::-1]


def _refusal(address: str) -> str | None:
    host, port = parse_address(address)
    with socket.socket(socket.AF_INET6 if ":" in host else socket.AF_INET, socket.SOCK_STREAM) as tried:
        tried.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            tried.bind((host, port))
            tried.listen(1)
        except OSError as error:
            return (error.strerror or str(error)).lower()
    return None


async def _readiness(address: str, within: float, *, encrypted: bool) -> str | None:
    """What a gateway says of itself there; None if there is none."""
    context = None
    if encrypted:
        context = ssl.create_default_context()
        context.check_hostname, context.verify_mode = False, ssl.CERT_NONE  # nothing secret is said
    host, port = parse_address(address)
    host = {"0.0.0.0": "127.0.0.1", "::": "::1"}.get(host, host)
    try:
        async with asyncio.timeout(within):
            reader, writer = await asyncio.open_connection(host, port, ssl=context)
            writer.write(b"GET /ready HTTP/1.0\r\nhost: doctor\r\n\r\n")
            answer = await reader.read(64 * 1024)
            writer.close()
        told = json.loads(answer.partition(b"\r\n\r\n")[2])
        return f"{told['status']}{': ' if told['reason'] else ''}{told['reason']}"
    except ssl.SSLError as error:
        return "which wants a certificate" if "CERTIFICATE_REQUIRED" in str(error.reason) else None
    except (OSError, TimeoutError, ValueError, KeyError, TypeError):
        return None

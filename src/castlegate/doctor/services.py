"""Whether the instances of HTTP services can be reached: names, a connection, TLS where it is said; no request."""

from __future__ import annotations

import asyncio

from castlegate.config.addresses import parse_origin
from castlegate.doctor.findings import Finding, Unreachable, connect
from castlegate.doctor.handshake import handshake
from castlegate.upstreams.http.checks import Question
from castlegate.upstreams.http.discovery import NotFound, Source
from castlegate.wire.service_tls import ServiceCertificates


async def found(service: str, source: Source, within: float) -> tuple[Finding, list[str]]:
    """Who the instances of a service are that are not listed in the configuration: their URLs."""
    check = f"service {service}: {source.name}"
    try:
        async with asyncio.timeout(within):
            members = (await source.look()).members
    except TimeoutError:
        return Finding(check, "wrong", f"no answer within {within:g} s", "check the DNS servers"), []
    except NotFound as missing:
        return Finding(check, "wrong", str(missing), "a running gateway goes on with the instances it has seen"), []
    if not members:
        return Finding(check, "wrong", "it names no instance", "a service without instances is answered with 503"), []
    urls = sorted({each.url for each in members})
    return Finding(check, "well", f"{len(urls)} instances"), urls


async def passes(well: Finding, question: Question, url: str) -> Finding:
    """Whether an instance that can be reached passes the service's health check."""
    failure = await question.ask(parse_origin(url))
    if failure:
        says = f"{well.says}, but its health check fails: {failure}"
        return Finding(well.check, "wrong", says, "it gets no calls while others pass theirs")
    return Finding(well.check, "well", f"{well.says}, its health check passes")


async def instance(service: str, url: str, certificates: ServiceCertificates | None, within: float) -> Finding:
    """One instance of a service; `certificates` are those that the gateway connects to the service with."""
    check = f"service {service}: {url}"
    origin = parse_origin(url)
    try:
        address = await connect(origin.host, origin.port, within)
    except Unreachable as failure:
        return Finding(check, "wrong", failure.reason, failure.advice)
    well = Finding(check, "well", f"{address} accepts connections")
    if not origin.tls:
        return well
    assert certificates is not None, "a service with such an instance has them"
    return await handshake(well, certificates, (address, origin.port), origin.host, within)

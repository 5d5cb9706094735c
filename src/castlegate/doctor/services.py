"""Whether the instances of HTTP services can be reached: their names and a connection, no request."""

from __future__ import annotations

from castlegate.config.addresses import parse_origin
from castlegate.doctor.findings import Finding, Unreachable, connect


async def instance(service: str, url: str, within: float) -> Finding:
    """One instance of a service."""
    check = f"service {service}: {url}"
    origin = parse_origin(url)
    try:
        address = await connect(origin.host, origin.port, within)
    except Unreachable as failure:
        return Finding(check, "wrong", failure.reason, failure.advice)
    return Finding(check, "well", f"{address} accepts connections")

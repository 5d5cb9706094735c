"""Whether the instances of HTTP services can be reached: names, a connection, TLS where it is said; no request."""

from __future__ import annotations

from castlegate.config.addresses import parse_origin
from castlegate.doctor.findings import Finding, Unreachable, connect
from castlegate.doctor.handshake import handshake
from castlegate.wire.service_tls import ServiceCertificates


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

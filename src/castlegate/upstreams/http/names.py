"""Instances by DNS: the addresses of a name, or the targets of its service records, asked anew when they expire."""

from __future__ import annotations

import time

import dns.asyncresolver
import dns.exception
import dns.rdatatype
import dns.resolver
from dns.rdtypes.IN.SRV import SRV

from castlegate.config.addresses import Origin, parse_address
from castlegate.upstreams.http.discovery import NAMES_WAIT, Found, Member, NotFound
from castlegate.upstreams.http.sources import Dns, Srv


class Addresses:
    """Of one name."""

    def __init__(self, settings: Dns) -> None:
        self.name = settings.says
        self.least, self.patience = settings.least, NAMES_WAIT
        self._settings = settings
        self._host, self._port = parse_address(settings.name)

    async def look(self) -> Found:
        """See `Source`."""
        settings = self._settings
        answer = await _ask(settings, self._host, dns.rdatatype.A)
        if answer.rrset is None:  # addresses of both kinds are most often the same instances twice
            answer = await _ask(settings, self._host, dns.rdatatype.AAAA)
        tls = settings.scheme == "https"
        members = [Member(str(Origin(each.address, self._port, tls))) for each in answer.rrset or ()]
        return Found(members, _again(settings, answer))


class Targets:
    """Of one name's service records."""

    def __init__(self, settings: Srv) -> None:
        self.name = settings.says
        self.least, self.patience = settings.least, NAMES_WAIT
        self._settings = settings

    async def look(self) -> Found:
        """See `Source`."""
        settings = self._settings
        answer = await _ask(settings, settings.name, dns.rdatatype.SRV)
        found: dict[str, Member] = {}
        records = [record for record in answer.rrset or () if isinstance(record, SRV)]
        # Weights mean something within a priority only, and have up to 65,535 steps there; 100 will do.
        most = {each.priority: 0 for each in records}
        for each in records:
            most[each.priority] = max(most[each.priority], each.weight)
        for record in sorted(records, key=lambda record: (record.priority, -record.weight)):
            host = record.target.to_text(omit_final_dot=True)
            if host == ".":
                continue  # RFC 2782: the service is decidedly not here
            url = str(Origin(host.lower(), record.port, settings.scheme == "https"))
            # RFC 2782: a weight of 0 has a very small chance; targets that all have it have the same.
            weight = max(1, record.weight * 100 // max(100, most[record.priority]))
            found.setdefault(url, Member(url, weight, record.priority))
        return Found(list(found.values()), _again(settings, answer))


async def _ask(settings: Dns | Srv, name: str, kind: dns.rdatatype.RdataType) -> dns.resolver.Answer:
    """An answer, also one without records. Raises `NotFound`."""
    try:
        resolver = dns.asyncresolver.Resolver(configure=settings.server is None)  # reads the file anew
        if settings.server is not None:
            host, resolver.port = parse_address(settings.server)
            resolver.nameservers = [host]
        resolver.lifetime = settings.timeout
        return await resolver.resolve(name, kind, raise_on_no_answer=False, search=settings.server is None)
    except dns.resolver.NXDOMAIN as error:
        raise NotFound("there is no such name") from error
    except dns.exception.Timeout as error:
        raise NotFound("no server answered in time") from error
    except (dns.exception.DNSException, OSError) as error:
        raise NotFound(f"it could not be looked up: {error}") from error


def _again(settings: Dns | Srv, answer: dns.resolver.Answer) -> float:
    """Seconds for which the answer may be kept, within bounds."""
    return min(settings.longest, max(settings.least, answer.expiration - time.time()))

"""Who the client is, and what the services are told of it: `Forwarded`, `X-Forwarded-*` and `Via`.

What a client says of itself is dropped unless it connects from a trusted proxy; then it is believed and continued
(RFC 7239).
"""

from __future__ import annotations

import re
from functools import lru_cache
from ipaddress import ip_address, ip_network

HIDDEN = "unknown"  # an address that a proxy does not tell (RFC 7239 §6)
_LONGEST_REMEMBERED = 256  # bytes of a `Via`
# With or without a port, which some proxies add: `192.0.2.1:80`, `[2001:db8::1]:80`.
_NODE = re.compile(r"\[([0-9A-Fa-f:.]+)\](?::[0-9]{1,5})?|([0-9.]+):[0-9]{1,5}|[0-9A-Fa-f:.]+")


class Forwarding:
    """The rule of one listener."""

    def __init__(self, trusted: list[str], name: str) -> None:
        self._networks = [ip_network(network) for network in trusted]
        self.via = f"1.1 {name}".encode()
        self.trusts = lru_cache(4096)(self._trusts)

    def _trusts(self, address: str) -> bool:
        """Whether a proxy at this address is believed."""
        try:
            parsed = ip_address(address)
        except ValueError:
            return False
        return any(parsed.version == network.version and parsed in network for network in self._networks)

    def client(self, peer: str, read: dict[bytes, bytes]) -> str:
        """The address nearest to the client that a trusted proxy vouches for."""
        chain = read.get(b"x-forwarded-for")
        if not self._networks or chain is None or not self.trusts(peer):
            return peer
        client = peer
        for hop in reversed([part.strip() for part in chain.decode("latin-1").split(",")]):
            if not hop:
                continue
            client = _address(hop)
            if not self.trusts(client):
                break
        return client

    def fields(self, peer: str, scheme: bytes, host: bytes, read: dict[bytes, bytes]) -> bytes:
        """What goes to the services: lines with CRLF between. `read` holds what the client sent under these names."""
        via = read.get(b"via")
        own_via = self.via if via is None else via + b", " + self.via
        if not (self._networks and self.trusts(peer)):
            return (
                _fresh(peer, scheme, host, own_via)
                if len(own_via) <= _LONGEST_REMEMBERED
                else _lines(peer, scheme, host, own_via)
            )
        fields = dict(_fields(peer, scheme, host))
        for name in (b"x-forwarded-for", b"forwarded"):
            if name in read:
                fields[name] = read[name] + b", " + fields[name]
        said = {name: read[name] for name in read if name.startswith(b"x-forwarded-") and name != b"x-forwarded-for"}
        return b"\r\n".join([b"%b: %b" % pair for pair in (fields | said | {b"via": own_via}).items()])


def _address(hop: str) -> str:
    """Of whom a proxy speaks. Where it does not say, nobody's: its own would let whoever it hides pass for it."""
    node = _NODE.fullmatch(hop)
    try:
        address = ip_address("" if node is None else node[1] or node[2] or hop)
    except ValueError:
        return HIDDEN
    return str(getattr(address, "ipv4_mapped", None) or address)


def _lines(peer: str, scheme: bytes, host: bytes, via: bytes) -> bytes:
    """The lines for a client whose word is not taken."""
    return b"\r\n".join([b"%b: %b" % pair for pair in (*_fields(peer, scheme, host), (b"via", via))])


_fresh = lru_cache(1024)(_lines)  # for a `Via` of ordinary length


def _fields(peer: str, scheme: bytes, host: bytes) -> list[tuple[bytes, bytes]]:
    node = f'"[{peer}]"' if ":" in peer else peer
    quoted = host.replace(b"\\", b"\\\\").replace(b'"', b'\\"')
    return [
        (b"x-forwarded-for", peer.encode()),
        (b"x-forwarded-proto", scheme),
        (b"x-forwarded-host", host),
        (b"forwarded", b'for=%b;proto=%b;host="%b"' % (node.encode(), scheme, quoted)),
    ]

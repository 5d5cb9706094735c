"""Who this broker says it is, and where clients are told to find it."""

from castlegate_broker.request import Peer

NODE_ID = 1


class Advertised:
    """The address in metadata: the one set, or else the one by which the client got here."""

    __slots__ = ("_address",)

    def __init__(self, address: tuple[str, int] | None) -> None:
        self._address = address

    def to(self, peer: Peer) -> tuple[str, int]:
        """Host and port for this client."""
        return self._address or peer.reached_at

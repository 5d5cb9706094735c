"""A running broker: assembles topics, groups and handlers, and listens."""

import asyncio
import base64
import secrets
from types import TracebackType

from castlegate_broker.advertise import Advertised
from castlegate_broker.connection import Connection
from castlegate_broker.coordinator import Coordinator
from castlegate_broker.dispatch import Dispatcher
from castlegate_broker.handle_cluster import ClusterHandlers
from castlegate_broker.handle_configs import ConfigHandlers
from castlegate_broker.handle_fetch import FetchHandlers
from castlegate_broker.handle_groups import GroupHandlers
from castlegate_broker.handle_offsets import OffsetHandlers
from castlegate_broker.handle_positions import PositionHandlers
from castlegate_broker.handle_produce import ProduceHandlers
from castlegate_broker.handle_topics import TopicHandlers
from castlegate_broker.settings import Settings
from castlegate_broker.topics import Topics


class Broker:
    """The embedded broker; it serves while its `async with` block runs."""

    def __init__(self, settings: Settings) -> None:
        self._settings = settings
        self._connections: set[Connection] = set()
        self.topics = Topics(settings)
        self.coordinator = Coordinator(settings)
        self._dispatcher = self._assemble()
        self._server: asyncio.Server

    def _assemble(self) -> Dispatcher:
        settings, topics, coordinator = self._settings, self.topics, self.coordinator
        advertised = Advertised(settings.advertise)
        cluster_id = base64.urlsafe_b64encode(secrets.token_bytes(16)).decode().rstrip("=")
        return Dispatcher(
            {
                **ClusterHandlers(topics, settings, advertised, cluster_id).table(),
                **ProduceHandlers(topics).table(),
                **FetchHandlers(topics, settings).table(),
                **PositionHandlers(topics).table(),
                **TopicHandlers(topics, coordinator, settings).table(),
                **ConfigHandlers(topics, settings).table(),
                **GroupHandlers(coordinator, settings, advertised).table(),
                **OffsetHandlers(coordinator, topics).table(),
            }
        )

    @property
    def port(self) -> int:
        """The port that is listened on."""
        port: int = self._server.sockets[0].getsockname()[1]
        return port

    async def __aenter__(self) -> "Broker":
        settings = self._settings
        self._server = await asyncio.get_running_loop().create_server(
            lambda: Connection(
                self._dispatcher, settings.max_request_bytes, self._connections, settings.max_connections
            ),
            settings.host,
            settings.port,
        )
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._server.close()
        for connection in tuple(self._connections):
            connection.close()
        self.coordinator.close()
        await self._server.wait_closed()

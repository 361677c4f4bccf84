"""Faust's web server, on a socket that listens already."""

import socket
from typing import Any

from aiohttp.web import SockSite
from faust.web.drivers.aiohttp import Web


class HeldWeb(Web):
    """Serves on a socket that is held since its port was chosen.

    Faust is told a port when the app is made and binds it a second later, when another program may have it.
    """

    def __init__(self, app: Any, listening: socket.socket) -> None:
        super().__init__(app)
        self._listening = listening

    async def start_server(self) -> None:
        """Serve on the socket instead of on one of its own."""
        await self._runner.setup()
        await SockSite(self._runner, self._listening).start()

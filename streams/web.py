"""Where a worker's web server listens."""

import socket

from schemas.settings import Settings


class PortTaken(RuntimeError):
    """The web server cannot listen where the settings say. Set another `web_port`, or mend `web_bind`."""

    def __init__(self, bind: str, port: int, error: OSError) -> None:
        super().__init__(
            f"the web server cannot listen on port {port} of {bind}: {error.strerror}; set another web_port "
            "(OPPORTUNE_WEB_PORT; 0: any free one), or mend web_bind"
        )


def listen(settings: Settings) -> socket.socket:
    """Return a socket that listens on the port that is set, else on any free one. Raises `PortTaken`."""
    bind, port = settings.web_bind, settings.web_port
    try:
        return socket.create_server((bind, port), family=socket.AF_INET6 if ":" in bind else socket.AF_INET)
    except OSError as error:
        raise PortTaken(bind, port, error) from error

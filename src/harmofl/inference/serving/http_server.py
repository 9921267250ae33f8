"""HTTP server for an ASGI application."""

import socket
from typing import Any

from harmofl.errors import ConfigError


def serve_app(app: Any, host: str, port: int) -> None:
    """Serve an application until Ctrl-C.

    Raises:
        ConfigError: if the address cannot be used.
    """
    import uvicorn

    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    try:
        bound = socket.create_server((host, port), family=family)
    except OSError as error:
        raise ConfigError(f"{host}:{port}: cannot be served on ({error.strerror or error}); choose another") from None
    shown = f"[{host}]" if ":" in host else host
    print(f"http://{shown}:{port}/ takes images, /docs describes it; Ctrl-C ends it", flush=True)
    with bound:
        server = uvicorn.Server(uvicorn.Config(app, log_level="warning", access_log=False, server_header=False))
        server.run(sockets=[bound])

"""HTTP listener of the server: one port, with or without TLS, in its own thread."""

import logging
import socket
import threading
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import uvicorn
from fastapi import FastAPI, Request, Response
from starlette.middleware.base import RequestResponseEndpoint

from harmofl.errors import ConfigError

log = logging.getLogger("harmofl")


@dataclass(frozen=True)
class Certificate:
    """PEM files of the server's TLS certificate and its private key."""

    certificate: Path
    key: Path


class Door:
    """HTTP server that serves an app until it is closed.

    Args:
        host: address to listen at.
        port: port to listen at; 0 takes any free port.
        certificate: TLS certificate; None listens without TLS.
        app: application that answers the requests.

    Attributes:
        port: port it listens at.

    Raises:
        ConfigError: if the address or the certificate cannot be used.
    """

    def __init__(self, host: str, port: int, certificate: Certificate | None, app: FastAPI) -> None:
        try:
            family = socket.AF_INET6 if ":" in host else socket.AF_INET
            self._socket = socket.create_server((host, port), family=family)
        except OSError as error:
            reason = error.strerror or error
            raise ConfigError(f"{host}:{port}: cannot listen there ({reason}); free the port or set another") from None
        self.port = self._socket.getsockname()[1]
        tls: dict[str, Any] = {}
        if certificate:
            tls = {"ssl_certfile": str(certificate.certificate), "ssl_keyfile": str(certificate.key)}
        try:
            config = uvicorn.Config(app, log_config=None, access_log=False, lifespan="off", ws="none", **tls)
            config.load()
        except OSError as error:
            self._socket.close()
            raise ConfigError(f"certificate and key must be PEM files that belong together, but {error}") from None
        self._server = uvicorn.Server(config)
        self._thread = threading.Thread(target=self._server.run, kwargs={"sockets": [self._socket]}, daemon=True)
        self._thread.start()
        while not self._server.started and self._thread.is_alive():
            time.sleep(0.01)

    def close(self) -> None:
        """Stop listening and close all connections."""
        self._server.should_exit = True
        self._thread.join(timeout=5)
        self._socket.close()


async def telling(request: Request, call_next: RequestResponseEndpoint) -> Response:
    """Log each refused request in one line."""
    response = await call_next(request)
    if response.status_code >= 400:
        host = request.client.host if request.client else "?"
        why = {401: "its signature or its clock is wrong", 403: "no site of this federation has its key"}
        said = why.get(response.status_code, f"status {response.status_code}")
        log.warning("%s: refused at %s: %s", host, ascii(request.url.path)[1:-1][:80], said)
    return response

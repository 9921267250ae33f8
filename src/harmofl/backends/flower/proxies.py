"""The proxy that the environment sets between a site and its server, so that errors name the right cause."""

import os
import socket
from dataclasses import dataclass
from urllib.request import getproxies, proxy_bypass

import httpx

from harmofl.errors import ConfigError

_LOOK_S = 5.0
_PORTS = {"https": 443, "socks5": 1080, "socks5h": 1080}


@dataclass(frozen=True)
class Proxy:
    """A proxy for outgoing connections.

    Args:
        variable: environment variable that names the proxy.
        host: host of the proxy.
        port: port of the proxy.
        target: host of the server reached through the proxy.
    """

    variable: str
    host: str
    port: int
    target: str

    def __str__(self) -> str:
        return f"the proxy at {self.host}:{self.port} ({self.variable})"

    def fault(self) -> str:
        """Return why the proxy itself cannot be reached, with what to do, or "" if it can."""
        try:
            socket.create_connection((self.host, self.port), _LOOK_S).close()
        except OSError as error:
            fix = f"start it, unset {self.variable}, or add {self.target} to no_proxy"
            return f"{self} does not answer ({error.strerror or error}); {fix}"
        return ""


def proxy_of(target: str, scheme: str) -> Proxy | None:
    """Return the proxy that httpx uses for a host, from http_proxy, https_proxy, all_proxy and no_proxy.

    Args:
        target: the host.
        scheme: http or https.

    Raises:
        ConfigError: if a variable holds no address that httpx can use.
    """
    try:
        httpx.Client(verify=False).close()
    except (ValueError, ImportError, httpx.InvalidURL) as error:
        raise ConfigError(
            "http_proxy, https_proxy and all_proxy must be such as http://proxy.hospital.org:3128, or not set, but: "
            f"{error}"
        ) from None
    found = getproxies()
    name = scheme if found.get(scheme) else "all"
    if not found.get(name) or proxy_bypass(target):
        return None
    url = httpx.URL(found[name] if "://" in found[name] else f"http://{found[name]}")
    variable = f"{name}_proxy" if f"{name}_proxy" in os.environ else f"{name}_proxy".upper()
    return Proxy(variable, url.host, url.port or _PORTS.get(url.scheme, 80), target)

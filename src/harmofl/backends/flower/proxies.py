"""The proxy that the environment puts between a site and its server, so that a break is laid at the right door."""

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
        variable: of the environment, that names it.
        host: of the proxy.
        port: likewise.
        target: host of the server that is reached by way of it.
    """

    variable: str
    host: str
    port: int
    target: str

    def __str__(self) -> str:
        return f"the proxy at {self.host}:{self.port} ({self.variable})"

    def fault(self) -> str:
        """Why the proxy itself cannot be reached, with what to do; "" if it can."""
        try:
            socket.create_connection((self.host, self.port), _LOOK_S).close()
        except OSError as error:
            fix = f"start it, unset {self.variable}, or add {self.target} to no_proxy"
            return f"{self} does not answer ({error.strerror or error}); {fix}"
        return ""


def proxy_of(target: str, scheme: str) -> Proxy | None:
    """The proxy that httpx takes to a host, from http_proxy, https_proxy, all_proxy and no_proxy.

    Args:
        target: the host.
        scheme: http or https.

    Raises:
        ConfigError: if one of the variables holds no address that httpx can use.
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

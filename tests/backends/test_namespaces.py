"""Server, proxy and sites each in a network of their own: sites reach the proxy alone."""

import os
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import patience
import pytest

pytest.importorskip("flwr", reason="needs Flower: pip install 'harmofl[flower]'")
from deployments import SITES, Deployment, free_port

from harmofl.ingest.synthetic.federation import write_federation

NAMES = {name: f"hf{os.getpid()}-{k}" for k, name in enumerate(("proxy", "server", *SITES))}
INTO = """
import ctypes, os
CLONE_NEWNET = 0x40000000
assert ctypes.CDLL(None).setns(os.open({network!r}, os.O_RDONLY), CLONE_NEWNET) == 0
"""
FRONT, BACK, SERVER = "10.77.1.1", "10.77.2.1", "10.77.2.2"


def ip(*words: str) -> bool:
    return subprocess.run(["ip", *words], capture_output=True).returncode == 0


def possible() -> bool:
    """Whether networks can be made here."""
    if shutil.which("ip") is None or shutil.which("nginx") is None:
        return False
    name = f"hf{os.getpid()}"
    return ip("netns", "add", name) and ip("netns", "del", name)


@pytest.fixture
def networks() -> Iterator[dict[str, str]]:
    """The proxy between two networks, with no way through but itself."""
    inside = NAMES["proxy"]

    def link(name: str, own: str, at_proxy: str) -> None:
        assert ip("link", "add", f"{own}0", "netns", NAMES[name], "type", "veth", "peer", at_proxy, "netns", inside)

    try:
        for name in NAMES.values():
            assert ip("netns", "add", name)
            assert ip("-n", name, "link", "set", "lo", "up")
        assert ip("-n", inside, "link", "add", "front", "type", "bridge")
        for k, site in enumerate(SITES):
            link(site, "site", f"p{k}")
            assert ip("-n", inside, "link", "set", f"p{k}", "master", "front", "up")
            assert ip("-n", NAMES[site], "addr", "add", f"10.77.1.{10 + k}/24", "dev", "site0")
            assert ip("-n", NAMES[site], "link", "set", "site0", "up")
            assert ip("-n", NAMES[site], "route", "add", "default", "via", FRONT)
        link("server", "back", "back")
        for name, device, address in (
            (inside, "front", FRONT),
            (inside, "back", BACK),
            (NAMES["server"], "back0", SERVER),
        ):
            assert ip("-n", name, "addr", "add", f"{address}/24", "dev", device)
            assert ip("-n", name, "link", "set", device, "up")
        yield {name: f"ip netns exec {space}" for name, space in NAMES.items()}
    finally:
        for name in NAMES.values():
            ip("netns", "del", name)


@pytest.mark.skipif(not possible(), reason="needs nginx, ip and the right to make network namespaces")
def test_sites_reach_the_fleet_path_alone(networks: dict[str, str], tmp_path: Path) -> None:
    write_federation(tmp_path / "data", sites=3, images=10, size=32)
    inner = free_port()
    settings = {"training.rounds": 2}
    with Deployment(tmp_path / "d", tmp_path / "data", settings, host=FRONT) as deployed:
        for name in ("server", *SITES):
            deployed.before[name] = INTO.format(network=f"/run/netns/{NAMES[name]}")
        proxy = [*networks["proxy"].split(), *deployed.proxied(tmp_path, SERVER, inner)]
        deployed.processes["nginx"] = subprocess.Popen(proxy, stderr=subprocess.DEVNULL)
        deployed.start("server", "--insecure")
        deployed.until(lambda: "listening" in deployed.said("server"))
        for name, reached in (("proxy", True), ("site-1", False)):
            code = f"import socket; socket.create_connection(({SERVER!r}, {inner}), timeout={patience.pause(3)})"
            tried = subprocess.run([*networks[name].split(), sys.executable, "-c", code], capture_output=True)
            assert (tried.returncode == 0) == reached
        for site in SITES:
            deployed.start(site)
        deployed.end_well()

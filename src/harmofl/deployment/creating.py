"""Creation of the folders of a deployment; see `harmofl.deployment.folders` for their contents."""

import ipaddress
import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import tomli_w

from harmofl.deployment.certificates import Keys, certificates, site_keys, write_public, write_secret
from harmofl.deployment.existing_network import write_for_network
from harmofl.deployment.folders import ENGINES, FLOWER, NVFLARE, refuse_arrangement, split_address
from harmofl.errors import ConfigError
from harmofl.experiment.privacy_policy import check_method
from harmofl.experiment.tables import Experiment
from harmofl.experiment.taking_part import draw_sites
from harmofl.utils.atomic_files import storing
from harmofl.utils.lazy_imports import optional

HOST = re.compile(r"[A-Za-z0-9]([A-Za-z0-9.-]{0,251}[A-Za-z0-9])?")
NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,63}")
LOCAL = ("folder", "cache", "sites", "unseen", "source")
"""Keys of the data table that each site sets for itself."""


def create(
    out: Path,
    experiment: Experiment,
    sites: Sequence[str],
    address: str,
    *,
    listen: str = "",
    min_sites: int | None = None,
    deadline_s: float = 3600.0,
    engine: str = NVFLARE,
    attach: bool = False,
) -> list[Path]:
    """Make the folders of a deployment, its keys and its certificates.

    Args:
        out: the folder to make them in; new or empty.
        experiment: the experiment to train; each site sets the place of its images itself.
        sites: names of the sites.
        address: HOST:PORT under which sites reach the server; the certificate is for that host. "" with `attach`.
        listen: HOST:PORT at which the server listens; every address of the machine, at the same port, if empty.
        min_sites: smallest number of sites in a round; all if None.
        deadline_s: seconds that a site has for its share of a round.
        engine: what carries the messages, one of `ENGINES`.
        attach: make only what a network that runs the engine already needs: its job or app, and a page for who runs it.

    Returns:
        The folders made.

    Raises:
        ConfigError: if an option or a setting is invalid.
        StorageError: if the folders cannot be written.
    """
    count = len(sites) if min_sites is None else min_sites
    _check_options(out, sites, count, deadline_s)
    _check_engine(engine, sites)
    host, port = _address(address, listen, engine, attach)
    _check_experiment(experiment, sites, count)
    agreed, both = _agreed(experiment), {"engine": engine, "attach": attach}
    listen = listen or (address and f"0.0.0.0:{port}")
    server = {"listen": listen, "min_sites": count, "deadline_s": float(deadline_s), **both}
    with storing(out):
        out.mkdir(parents=True, exist_ok=True, mode=0o700)
        made = _folders(out, agreed, server, {name: {"name": name, "server": address, **both} for name in sites})
        if attach:
            write_for_network(out)
        elif engine == FLOWER:
            authority = certificates(out / "authority", made[0], host)
            for place in made:
                (place / "ca.pem").write_bytes(authority)
    if engine == NVFLARE and not attach:
        from harmofl.backends.nvflare.kits import provision

        provision(out / "authority", {name: out / name for name in sites}, made[0], host, port)
    return made


def _folders(out: Path, agreed: str, server: Mapping[str, Any], sites: Mapping[str, Mapping[str, Any]]) -> list[Path]:
    """Make the folder of the server and then that of each site, with their settings and the sites' new keys."""
    keys = site_keys(list(sites))
    made = [_folder(out / "server", agreed, "server.toml", server, keys)]
    for name, settings in sites.items():
        made.append(_folder(out / name, agreed, "site.toml", settings, keys))
        write_secret(made[-1] / "key.pem", keys[name])
    return made


def _folder(path: Path, agreed: str, file: str, settings: Mapping[str, Any], keys: Keys) -> Path:
    """Make a folder that only its owner can read, with the agreed experiment, its settings and all public keys."""
    path.mkdir(mode=0o700)
    (path / "experiment.toml").write_text(agreed, encoding="utf-8")
    (path / file).write_text(tomli_w.dumps(settings), encoding="utf-8")
    write_public(path / "sites", keys)
    return path


def _address(address: str, listen: str, engine: str, attach: bool) -> tuple[str, int]:
    """Return host and port under which sites reach the server; none with `attach`."""
    if attach:
        if address or listen:
            option = "--address" if address else "--listen"
            raise ConfigError(f"{option}: is that of the network that runs {engine} already; leave it out")
        return "", 0
    host, port = split_address(address, "--address")
    if not HOST.fullmatch(host) and not _is_ip(host):
        raise ConfigError(f"--address must be HOST:PORT with a name in ASCII or an IP address, got {address!r}")
    if listen:
        if engine == NVFLARE:
            raise ConfigError("--listen: is not for --engine nvflare, which listens everywhere; leave it out")
        split_address(listen, "--listen")
    return host, port


def _check_engine(engine: str, sites: Sequence[str]) -> None:
    if engine not in ENGINES:
        raise ConfigError(f"--engine must be one of {', '.join(ENGINES)}, got {engine!r}")
    optional({NVFLARE: "nvflare", FLOWER: "flwr"}[engine], f"--engine {engine}", engine)
    for name in sites:
        if engine == NVFLARE and (not re.fullmatch(r"[A-Za-z0-9_-]+", name) or name == "harmofl-server"):
            raise ConfigError(
                f"--site must be letters, digits, - and _ under --engine nvflare, and not harmofl-server, got {name!r}"
            )


def _check_options(out: Path, sites: Sequence[str], count: int, deadline_s: float) -> None:
    _check_names(sites)
    if not 1 <= count <= len(sites):
        raise ConfigError(f"--min-sites must be from 1 to the number of sites, {len(sites)}, got {count}")
    if out.exists() and (not out.is_dir() or any(out.iterdir())):
        raise ConfigError(f"{out}: must be a new folder or an empty one; choose another with --out")
    if not 0 < deadline_s < float("inf"):
        raise ConfigError(f"--deadline must be a finite number of seconds above 0, got {deadline_s}")


def _check_experiment(experiment: Experiment, sites: Sequence[str], count: int) -> None:
    if experiment.run.diagnostics:
        raise ConfigError(
            "run.diagnostics: measures on images of all sites in one place, which a deployment has not; set it to false"
        )
    method = experiment.method
    refuse_arrangement(experiment)
    check_method(experiment, method)
    drawn = len(draw_sites(experiment, len(sites), 1))
    if experiment.privacy.masks and min(count, drawn) < experiment.privacy.sites:
        raise ConfigError(
            f"privacy.masks: at least {experiment.privacy.sites} sites (privacy.sites) must make a round, got {drawn} "
            f"that take part and --min-sites {count}"
        )


def _agreed(experiment: Experiment) -> str:
    """Return the experiment that all parties get as TOML, without the keys in `LOCAL`."""
    if experiment.data.unseen:
        raise ConfigError("data.unseen: a deployment has no unseen sites; leave it out")
    if experiment.data.volumes and experiment.data.spacing is None:
        raise ConfigError("data.spacing: no site knows the volumes of the others; give it, such as [1, 1, 1]")
    if experiment.data.images_per_site == "smallest":
        raise ConfigError("data.images_per_site: no site knows how many the smallest has; give a number")
    tables = experiment.model_dump(mode="json", exclude_none=True)
    tables["data"] = {key: value for key, value in tables["data"].items() if key not in LOCAL}
    return tomli_w.dumps(tables)


def _check_names(sites: Sequence[str]) -> None:
    if not sites:
        raise ConfigError("--site must be given, once for each site")
    for name in sites:
        if not NAME.fullmatch(name):
            raise ConfigError(f"--site must be letters, digits, '.', '_' and '-', at most 64, got {name!r}")
        if name.lower() in ("server", "authority"):
            raise ConfigError(f"--site must not be {name!r}, which is a folder of its own; choose another name")
    if len({name.lower() for name in sites}) < len(sites):
        raise ConfigError(f"--site must name each site once, got {', '.join(sites)}")


def _is_ip(host: str) -> bool:
    try:
        ipaddress.ip_address(host)
    except ValueError:
        return False
    return True

"""The commands `harmofl deploy`: a federation across hospitals."""

import logging
import sys
from pathlib import Path
from typing import Annotated, Any

import typer
from rich.console import Console

from harmofl.cli.options import Config, Settings, bar, interruptible
from harmofl.utils.shell import quoted

deploy_app = typer.Typer(no_args_is_help=True, help="Federations across hospitals: keys, server, sites.")


@deploy_app.command()
def init(
    site: Annotated[list[str], typer.Option(help="Name of a site; may be repeated.", metavar="NAME")],
    address: Annotated[str, typer.Option(help="Address under which sites reach the server.", metavar="HOST:PORT")] = "",
    config: Config = None,
    out: Annotated[Path, typer.Option(help="The folder to create.")] = Path("deployment"),
    listen: Annotated[str, typer.Option(help="Flower: address to listen on.", metavar="HOST:PORT")] = "",
    min_sites: Annotated[int | None, typer.Option(help="Smallest number of sites in a round; all by default.")] = None,
    deadline: Annotated[float, typer.Option(help="Seconds that a site has for its part of a round.")] = 3600.0,
    setting: Settings = None,
    engine: Annotated[str, typer.Option(help="What carries the messages: nvflare or flower.")] = "nvflare",
    attach: Annotated[
        bool, typer.Option("--job-only", "--app-only", help="For a network that runs the engine already.")
    ] = False,
) -> None:
    """Create keys, certificates and a folder for the server and for each site.

    Give each site only its own folder. The server's folder contains no key of a site but its public key. With
    --job-only (NVFlare) or --app-only (Flower), a network that runs the engine already gets the job or app and a page
    for its administrator.

    Example:
        harmofl deploy init --address fl.hospital.org:9092 --site north --site south --set training.rounds=50
        harmofl deploy init --engine flower --app-only --site north --site south
    """
    from harmofl.deployment.creating import create
    from harmofl.deployment.existing_network import PAGE
    from harmofl.experiment.config import load_experiment, parse_settings

    experiment = load_experiment(config, {"data.folder": "at-the-sites", **parse_settings(setting or [])})
    made = create(
        out,
        experiment,
        site,
        address,
        listen=listen,
        min_sites=min_sites,
        deadline_s=deadline,
        engine=engine,
        attach=attach,
    )
    if attach:
        print(f"read    {out / PAGE}, for the administrator of the network")
    print(f"server  harmofl deploy serve {quoted(made[0])}")
    for folder in made[1:]:
        print(f"site    harmofl deploy join {quoted(folder)} --data IMAGES")


@deploy_app.command()
def serve(
    folder: Annotated[Path, typer.Argument(help="The server's folder.")],
    has_proxy: Annotated[
        bool, typer.Option("--i-have-a-proxy", help="Flower: start no nginx; a proxy here passes /v1/fleet/ only.")
    ] = False,
) -> None:
    """Run the server of a federation: wait for the sites and train; resume an interrupted federation.

    Example:
        harmofl deploy serve deployment/server
    """
    from harmofl.deployment.folders import ServerFolder

    ServerFolder.open(folder)
    from harmofl.deployment.server import run_server
    from harmofl.report.console import result_table

    _log()
    with interruptible(lambda: f"; go on with `harmofl deploy serve {quoted(folder)}`"):
        result = run_server(folder, has_proxy)
    Console().print(result_table([result]))
    print(f"run folder {folder / 'run'}")


@deploy_app.command()
def join(
    folder: Annotated[Path, typer.Argument(help="The site's folder.")],
    data: Annotated[Path, typer.Option(help="This site's images, which stay here.")],
    cache: Annotated[Path | None, typer.Option(help="Keep decoded images in this folder, not in memory.")] = None,
    device: Annotated[str | None, typer.Option(help="cpu, cuda, or auto for a GPU if there is one.")] = None,
    threads: Annotated[int | None, typer.Option(min=1, help="CPU threads; by default as in the experiment.")] = None,
    min_images: Annotated[int, typer.Option(min=0, help="Send no amplitude of fewer images than this.")] = 0,
    force: Annotated[
        bool, typer.Option("--force", help="Accept an image folder with the name of another site.")
    ] = False,
) -> None:
    """Take part in a federation with this site's images until it ends; all connections are outgoing.

    Example:
        harmofl deploy join deployment/north --data /images/north
    """
    from harmofl.data.layout.reader import check_folder
    from harmofl.deployment.folders import SiteKit

    SiteKit.open(folder)
    check_folder(data)
    from harmofl.deployment.site_client import run_site

    _log()
    given: dict[str, Any] = {"data.cache": cache and str(cache), "run.device": device, "run.threads": threads}
    with interruptible(lambda: "; repeat the command to join again"), bar("reading") as progress:
        run_site(folder, data, progress, min_images, force, **{k: v for k, v in given.items() if v is not None})


@deploy_app.command()
def status(folder: Annotated[Path, typer.Argument(help="The server's folder.")]) -> None:
    """Show the progress of a federation: its rounds, the state of each site, and why sites were left out.

    Example:
        harmofl deploy status deployment/server
    """
    from harmofl.deployment.status import read_status

    for line in read_status(folder):
        print(line)


@deploy_app.command()
def renew(
    deployment: Annotated[Path, typer.Argument(help="The folder that contains authority/ and server/.")],
) -> None:
    """Create new certificates of the same authority, and say who needs which file.

    Under NVFlare every party gets a new one. Under Flower only the server does, unless the authority's own certificate
    would expire before the new one.

    Example:
        harmofl deploy renew deployment
    """
    from harmofl.deployment.certificates import renew_certificate

    for line in renew_certificate(deployment):
        print(line)


def _log() -> None:
    """Log lines with the time to the standard error stream."""
    logging.basicConfig(format="%(asctime)s %(message)s", datefmt="%Y-%m-%d %H:%M:%S", stream=sys.stderr, force=True)
    logging.getLogger().setLevel(logging.WARNING)
    logging.getLogger("harmofl").setLevel(logging.INFO)

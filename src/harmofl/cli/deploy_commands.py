"""`harmofl deploy`: a federation between buildings."""

import logging
import sys
from pathlib import Path
from typing import Annotated, Any

import typer
from rich.console import Console

from harmofl.cli.options import Settings, bar, interruptible
from harmofl.errors import ConfigError

deploy_app = typer.Typer(no_args_is_help=True, help="Federations between buildings: keys, server, sites.")

Insecure = Annotated[bool, typer.Option("--insecure", help="Without TLS: whoever is on the way reads and changes all.")]


@deploy_app.command()
def init(
    address: Annotated[str, typer.Option(help="Under which sites reach the server.", metavar="HOST:PORT")],
    site: Annotated[list[str], typer.Option(help="A site's name; once for each.", metavar="NAME")],
    config: Annotated[Path | None, typer.Argument(help="An experiment as TOML; see configs/.")] = None,
    out: Annotated[Path, typer.Option(help="The folder to make.")] = Path("deployment"),
    listen: Annotated[str, typer.Option(help="Where the server listens, if not everywhere.", metavar="HOST:PORT")] = "",
    min_sites: Annotated[int | None, typer.Option(help="So many make a round; all if not given.")] = None,
    deadline: Annotated[float, typer.Option(help="Seconds a site has for its share of a round.")] = 3600.0,
    setting: Settings = None,
    engine: Annotated[str, typer.Option(help="What carries the messages: direct or nvflare.")] = "direct",
    insecure: Insecure = False,
) -> None:
    """Make keys, certificates and a ready folder for the server and for each site.

    Give each site its own folder and nothing else; of a site the server's folder holds the public key alone.

    Example:
        harmofl deploy init --address fl.hospital.org:9092 --site north --site south --set training.rounds=50
    """
    from harmofl.deployment.creating import create
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
        insecure=insecure,
        engine=engine,
    )
    plain = " --insecure" if insecure else ""
    print(f"server  harmofl deploy serve {made[0]}{plain}")
    for folder in made[1:]:
        print(f"site    harmofl deploy join {folder} --data IMAGES{plain}")


@deploy_app.command()
def serve(
    folder: Annotated[Path, typer.Argument(help="The server's folder.")],
    insecure: Insecure = False,
) -> None:
    """Hold a federation: wait for the sites, train, and go on after the last round if it was begun before.

    Example:
        harmofl deploy serve deployment/server
    """
    from harmofl.deployment.folders import ServerFolder

    ServerFolder.open(folder)
    from harmofl.deployment.server import run_server
    from harmofl.report.console import result_table

    _log()
    with interruptible(lambda: f"; go on with `harmofl deploy serve {folder}`"):
        result = run_server(folder, insecure)
    console = Console()
    console.print(result_table([result]))
    console.print(f"run folder {folder / 'run'}", soft_wrap=True, markup=False)


@deploy_app.command()
def join(
    folder: Annotated[Path, typer.Argument(help="The site's folder.")],
    data: Annotated[Path, typer.Option(help="This site's images, which stay here.")],
    cache: Annotated[Path | None, typer.Option(help="Keep decoded images in this folder, not in memory.")] = None,
    device: Annotated[str | None, typer.Option(help="cpu, cuda, or auto for a GPU if there is one.")] = None,
    threads: Annotated[int | None, typer.Option(min=1, help="Of this process; the experiment's, or all cores.")] = None,
    min_images: Annotated[int, typer.Option(min=0, help="Send no amplitude of fewer images than this.")] = 0,
    force: Annotated[
        bool, typer.Option("--force", help="Also with images in a folder called as another site.")
    ] = False,
    insecure: Insecure = False,
) -> None:
    """Take part in a federation with this site's images until it is over; connects outwards only.

    Example:
        harmofl deploy join deployment/north --data /images/north
    """
    from harmofl.data.layout.reader import check_folder
    from harmofl.deployment.folders import SiteKit

    if SiteKit.open(folder).insecure != insecure:
        raise ConfigError(f"{folder}: must agree with --insecure on whether there is TLS; see `insecure` in site.toml")
    check_folder(data)
    from harmofl.deployment.site_client import run_site

    _log()
    given: dict[str, Any] = {"data.cache": cache and str(cache), "run.device": device, "run.threads": threads}
    with interruptible(lambda: "; the same command joins again"), bar("reading") as progress:
        run_site(
            folder,
            data,
            progress,
            min_images,
            force,
            **{key: value for key, value in given.items() if value is not None},
        )


@deploy_app.command()
def status(folder: Annotated[Path, typer.Argument(help="The server's folder.")]) -> None:
    """Say how far a federation is: the rounds, what each site last did, and why any was left out.

    Example:
        harmofl deploy status deployment/server
    """
    from harmofl.deployment.status import read_status

    console = Console()
    for line in read_status(folder):
        console.print(line, soft_wrap=True, highlight=False, markup=False)


@deploy_app.command()
def renew(
    deployment: Annotated[Path, typer.Argument(help="The folder with authority/ and server/cert.pem in it.")],
) -> None:
    """Make a new certificate for the server, of the same authority and key, and say who needs which file.

    Sites need no new file, unless the authority's own certificate would expire before the new one.

    Example:
        harmofl deploy renew deployment
    """
    from harmofl.deployment.certificates import renew_certificate

    console = Console()
    for line in renew_certificate(deployment):
        console.print(line, soft_wrap=True, highlight=False, markup=False)


def _log() -> None:
    """Log lines with the time to the standard error stream."""
    logging.basicConfig(format="%(asctime)s %(message)s", datefmt="%H:%M:%S", stream=sys.stderr, force=True)
    logging.getLogger().setLevel(logging.WARNING)
    logging.getLogger("harmofl").setLevel(logging.INFO)

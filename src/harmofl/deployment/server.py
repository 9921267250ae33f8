"""The server of a deployment: the processes of its engine, and the training loop over the sites that answer."""

import logging
from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext
from pathlib import Path
from typing import Any

from harmofl.backends.relayed import RelayTransport, listen
from harmofl.deployment.certificates import RENEW, check_dates
from harmofl.deployment.folders import NVFLARE, RELAY, ServerFolder, experiment_of
from harmofl.deployment.server_backend import Server
from harmofl.deployment.site_registry import GREETING_S
from harmofl.errors import ConfigError
from harmofl.experiment.callbacks import Callback
from harmofl.experiment.round_record import RoundRecord
from harmofl.experiment.run_dir import RunDir
from harmofl.experiment.trainer import fit
from harmofl.federated.transport import Transport
from harmofl.utils.atomic_files import locked

log = logging.getLogger("harmofl")


def run_server(folder: Path, has_proxy: bool = False) -> dict[str, Any]:
    """Run the server: wait for sites and train; resume a run that was begun before.

    Args:
        folder: the server's folder, from `harmofl deploy init`.
        has_proxy: start no proxy before Flower's server, since one that is set up as docs/deploy.md says is there.

    Returns:
        The result, as in `result.json`.

    Raises:
        HarmoFLError: if a file or setting is invalid or the run fails.
    """
    place = ServerFolder.open(folder)
    experiment, digest = experiment_of(folder, {"data.folder": "at-the-sites"})
    if (folder / "run" / "result.json").exists():
        return RunDir.open(folder / "run").result()
    begun = _card_of(folder, digest)
    with locked(folder, "serving from"), _transport(place, has_proxy) as transport:
        server = Server(place, experiment, digest, transport)
        run_dir = server.open_run_dir(server.first_description(begun))
        with run_dir.locked():
            result = fit(server.experiment, server, run_dir, server.begin(run_dir), _Log(server))
            server.line(GREETING_S, over=True).describe(sorted(server.connected()))
            return result


@contextmanager
def _transport(place: ServerFolder, has_proxy: bool) -> Iterator[Transport]:
    """Start what carries the messages and keep it alive within the context."""
    with listen(place.folder / RELAY) as listener:
        transport = RelayTransport(listener)
        with _engine(place, transport, has_proxy):
            yield transport
            transport.end()


def _engine(place: ServerFolder, transport: RelayTransport, has_proxy: bool) -> AbstractContextManager[Any]:
    """Return the processes of an engine at the server."""
    folder, relay, sites = place.folder, place.folder / RELAY, ", ".join(sorted(place.keys))
    if place.attach:
        log.info("waits for the job or app in %s, which %s must run, and for %s", folder, place.engine, sites)
        return nullcontext()
    log.info("%s starts at %s for %s; its log is in %s", place.engine, place.listen, sites, folder)
    certificate = folder / ("nvflare/startup/server.crt" if place.engine == NVFLARE else "cert.pem")
    for line in check_dates(certificate, RENEW):
        log.warning(line)
    if place.engine == NVFLARE:
        from harmofl.backends.nvflare.engine_processes import ServerProcesses

        return ServerProcesses(folder, relay, transport, frozenset(place.keys))
    from harmofl.backends.flower.superlink import SuperLink

    return SuperLink(folder, place.listen, place.keys, relay, transport, has_proxy)


def _card_of(folder: Path, digest: str) -> dict[str, Any] | None:
    """Return the card of the run that was begun here, None if none was; raise ConfigError if it was another's."""
    run = folder / "run"
    if not (run / "config.toml").exists():
        return None
    card = RunDir.open(run).card()
    if card.get("fingerprint") != digest:
        raise ConfigError(
            f"{folder}: experiment.toml must be that with which {run} was begun, but is not; restore it, or move run/ "
            "away to start anew"
        )
    return card


class _Log(Callback):
    """A line in the log for every round."""

    def __init__(self, server: Server) -> None:
        self._server = server

    def on_round_end(self, record: RoundRecord) -> None:
        """Tell the round's number, sites, mean score and time."""
        metric, total = self._server.metric, self._server.experiment.training.rounds
        said = f"{metric} {summary.mean:.4f}" if (summary := record.summary(metric)) else "not validated"
        sites = len(record.train_loss)
        log.info("round %d of %d: %d sites, %s, %.1f s", record.round, total, sites, said, record.seconds)

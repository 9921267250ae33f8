"""The server of a deployment: rounds, participating sites, and resumption from checkpoints."""

import logging
import math
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, contextmanager, nullcontext
from dataclasses import dataclass, field, replace
from importlib.metadata import version
from pathlib import Path
from typing import Any
from uuid import uuid4

import torch
from torch import Tensor, nn

from harmofl.backends.relayed import RelayTransport, listen
from harmofl.backends.remote import RemoteRounds
from harmofl.data.manifest import SPLITS
from harmofl.deployment.certificates import RENEW, check_dates
from harmofl.deployment.folders import (
    NVFLARE,
    RELAY,
    ServerFolder,
    experiment_of,
    refuse_arrangement,
)
from harmofl.deployment.site_descriptions import STATISTICS, form, misfit
from harmofl.errors import ConfigError, HarmoFLError, RunError
from harmofl.evaluation.metrics import summarize
from harmofl.experiment.backend import TrainedRound
from harmofl.experiment.callbacks import Callback
from harmofl.experiment.checkpoint import Checkpoint
from harmofl.experiment.config import resolved, to_toml
from harmofl.experiment.model_build import build_model
from harmofl.experiment.model_card import check_metric, main_metric, model_card
from harmofl.experiment.privacy_policy import check_method, check_model_privacy, statement, tells_statistics
from harmofl.experiment.remarks import remarks_on_method
from harmofl.experiment.round_record import RoundRecord, Scores
from harmofl.experiment.run_dir import RunDir
from harmofl.experiment.tables import Experiment
from harmofl.experiment.taking_part import draw_sites
from harmofl.experiment.trainer import fit
from harmofl.federated.messages import ClientUpdate, ServerState
from harmofl.federated.tensors import Arrays
from harmofl.federated.transport import Transport
from harmofl.federated.wire import Scalars
from harmofl.methods import FedAvg
from harmofl.models.bn_calibration import from_lists
from harmofl.utils.atomic_files import locked

log = logging.getLogger("harmofl")
GREETING_S = 60.0
"""Time limit in seconds for the description of a site."""
TRIES, PAUSE = 5, 5.0
"""Number of tries for a round that too few sites complete, and the pause between tries in seconds."""
LOOK, RETURN_S = 0.2, 60.0
"""Seconds between checks of who is there, and for a site to come back before it is not asked for scores."""
VERSION = version("harmofl")


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
            server.line(GREETING_S, over=True).describe(server.present())
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

    def __init__(self, server: "Server") -> None:
        self._server = server

    def on_round_end(self, record: RoundRecord) -> None:
        """Tell the round's number, sites, mean score and time."""
        metric, total = self._server.metric, self._server.experiment.training.rounds
        mean = summarize({site: values[metric] for site, values in (record.val or {}).items()}).mean
        said = f"{metric} {mean:.4f}" if record.val else "not validated"
        sites = len(record.train_loss)
        log.info("round %d of %d: %d sites, %s, %.1f s", record.round, total, sites, said, record.seconds)


@dataclass
class Server:
    """The server of one federation, a `Backend` whose sites answer over a network.

    Args:
        place: the server's folder.
        experiment: what is trained, as agreed on; resolved once the task is known.
        digest: of what was agreed on.
        transport: the connection to the sites.
        run: names this run, so that sites know what they kept for it.
        card: the model card of the run.
        described: what sites said of themselves, by name.
        refused: why sites may not take part, likewise.
        greeted: the connection of a site when it was asked, and when to ask it again.
        kept: rounds whose states sites must still have.
        counted: the last round of which each site's update was averaged.
        begun: whether this process has begun a round; its first one waits for all sites.
        before: the state after the last round.
        ahead: the next round, trained by the messages that asked for the scores of the last one.
        lost: rounds in a row that were lost under masks.
    """

    place: ServerFolder
    experiment: Experiment
    digest: str
    transport: Transport
    run: str = ""
    card: Mapping[str, Any] = field(default_factory=dict)
    described: dict[str, Mapping[str, Any]] = field(default_factory=dict)
    refused: dict[str, str] = field(default_factory=dict)
    greeted: dict[str, tuple[object, float]] = field(default_factory=dict)
    kept: tuple[int, ...] = ()
    counted: dict[str, int] = field(default_factory=dict)
    begun: bool = False
    before: ServerState | None = None
    ahead: TrainedRound | None = None
    lost: int = 0
    told: str = ""
    method: FedAvg = field(init=False)
    model: nn.Module = field(init=False)

    @property
    def metric(self) -> str:
        """The metric by which the round is chosen."""
        return main_metric(self.experiment, self.card["task"])

    def line(self, timeout: float, quorum: int = 0, **more: Any) -> RemoteRounds:
        """Return the connection to the sites; every message names its run, version and experiment."""
        head = {
            "run": self.run,
            "version": VERSION,
            "digest": self.digest,
            "keep": list(self.kept),
            "sites": list(self.counted),
            "counted": list(self.counted.values()),
            **more,
        }
        return RemoteRounds(self.transport, timeout, quorum, head, masked=self.experiment.privacy.masks)

    def first_description(self, card: Mapping[str, Any] | None) -> Mapping[str, Any]:
        """Wait for enough equal site descriptions and return one; in a resumed run return its card."""
        if card:
            self.run = str(card["run"])
            return card
        self.run = uuid4().hex
        while True:
            self.greet()
            for said in self.described.values():
                alike = [name for name, other in self.described.items() if form(other) == form(said)]
                if len(alike) >= self.place.min_sites:
                    return said
            odd = "" if len({str(form(said)) for said in self.described.values()}) < 2 else self._odds()
            need = self.place.min_sites
            self.say(f"waiting for sites: {len(self.described)} there, {need} {'alike ' if odd else ''}needed{odd}")
            time.sleep(LOOK)

    def _odds(self) -> str:
        said = "; ".join(f"{name} {form(self.described[name])}" for name in sorted(self.described))
        return f"; they differ in task, classes, channels or size: {said}"

    def greet(self) -> None:
        """Request the descriptions of newly connected sites; refuse unsuitable sites with a reason in one line."""
        since, now = self.connected(), time.monotonic()
        new = [name for name, when in since.items() if self.greeted.get(name, (None, 0.0))[0] != when]
        silent = [name for name in since if now > self.greeted.get(name, (0, now))[1] and name in self.refused]
        if not (asked := sorted({*new, *silent})):
            return
        line = self.line(GREETING_S)
        answers = line.describe(asked)
        for name in asked:
            before = self.refused.pop(name, None)
            again = time.monotonic() + GREETING_S if name in line.left_out else float("inf")
            self.greeted[name] = since[name], again
            fault = line.left_out.get(name) or misfit(name, answers[name], self.card or None)
            if fault:
                self.refused[name] = fault
                if fault != before:
                    log.warning("refused: %s", fault)
                if name in answers:
                    self.line(GREETING_S, refused=fault).describe([name])
            elif name not in self.described or name in new:
                log.info("%s is there: %d images to train on", name, answers[name]["num_images"][0])
            if not fault:
                self.described[name] = answers[name]

    def present(self) -> list[str]:
        """Return the names of the connected sites that are not refused."""
        self.greet()
        return sorted(name for name in self.connected() if name in self.described and name not in self.refused)

    def connected(self) -> dict[str, object]:
        """Return the connected sites of this federation; one whose key was taken out of sites/ is none."""
        return {name: since for name, since in self.transport.connected().items() if name in self.place.keys}

    def open_run_dir(self, first: Mapping[str, Any]) -> RunDir:
        """Return the run folder; create it if there is none."""
        self.experiment = resolved(self.experiment, first["task"])
        check_metric(self.experiment, first["task"])
        torch.set_num_threads(self.experiment.run.threads)
        run = self.place.folder / "run"
        if not (run / "config.toml").exists():
            card = model_card(self.experiment, first, sorted(self.place.keys), fingerprint=self.digest, run=self.run)
            RunDir.create(run, to_toml(self.experiment, {"harmofl": VERSION}), card)
        run_dir = RunDir.open(run)
        self.card = run_dir.card()
        return run_dir

    def begin(self, run_dir: RunDir) -> Checkpoint:
        """Make the method and the model, and return the checkpoint to continue from."""
        experiment, card = self.experiment, self.card
        self.method = experiment.method
        refuse_arrangement(experiment)
        self.model = build_model(experiment, self.method, card["channels"], len(card["classes"]))
        check_method(experiment, self.method)
        check_model_privacy(experiment.privacy, self.method, self.model)
        for line in statement(experiment, self.method, deployed=True):
            log.info(line)
        checkpoint = run_dir.load() or Checkpoint(self.method.start(self.model, len(self.place.keys)))
        run_dir.rewind(checkpoint.server.round)
        run_dir.settle(checkpoint.best_round)
        if checkpoint.server.round:
            log.info("going on after round %d", checkpoint.server.round)
        for past in run_dir.records():
            self.counted.update(dict.fromkeys(past["train_loss"], past["round"]))
        return checkpoint

    def keep(self, rounds: Sequence[int]) -> None:
        """See `Backend`."""
        self.kept = tuple(rounds)

    def train(self, server: ServerState, on_client_end: Callable[[str], None]) -> TrainedRound:
        """See `Backend`; sites without a good answer in time are left out and recorded."""
        ahead, self.ahead = self.ahead, None
        if ahead and self.before is server:
            done = ahead
            for update in done.updates:
                on_client_end(update.site)
        else:
            drawn = self.drawn(server.round + 1)
            done = self.trained(drawn, *self.ask(server, drawn, on_client_end))
        for reason in done.left_out.values():
            log.warning("round %d without %s", done.server.round, reason)
        self.counted.update({update.site: done.server.round for update in done.updates})
        self.before = done.server
        return done

    def drawn(self, number: int) -> list[str]:
        """Return the names of the sites that take part in a round."""
        names = sorted(self.place.keys)
        return [names[k] for k in draw_sites(self.experiment, len(names), number)]

    def trained(
        self,
        drawn: Sequence[str],
        there: Sequence[str],
        line: RemoteRounds,
        after: ServerState,
        updates: Sequence[ClientUpdate],
    ) -> TrainedRound:
        """Return a round's result, with the reason for every drawn site that has no part in it."""
        absent = [name for name in drawn if name not in there]
        out = {name: self.refused.get(name, f"{name}: is not connected") for name in absent} | line.left_out
        return TrainedRound(after, updates, len(there), left_out=out)

    def ask(
        self, server: ServerState, drawn: Sequence[str], on_client_end: Callable[[str], None]
    ) -> tuple[list[str], RemoteRounds, ServerState, Sequence[ClientUpdate]]:
        """Run a round until enough sites answer; return asked sites, connection, new server state and updates.

        Under masks no site answers a round twice, so a round without all answers is lost: the weights stay unchanged.
        """
        number = server.round + 1
        patience, self.begun = 0.0 if self.begun else self.place.deadline_s, True
        for attempt in range(1, TRIES + 1):
            there = self.gather(drawn, number, patience)
            line = self.line(self.place.deadline_s, self.needed(drawn), among=there)
            try:
                after, updates = line.train(self.method, server, self.model, there, on_client_end)
                self.lost = 0
                return there, line, after, updates
            except HarmoFLError as error:
                self.lost += self.experiment.privacy.masks
                if TRIES in (attempt, self.lost):
                    raise
                if self.lost:
                    log.warning("%s; round %d is lost", error, number)
                    return there, line, replace(server, round=number), ()
                log.warning("%s; round %d is tried again in %.0f s", error, number, PAUSE)
                time.sleep(PAUSE)
        raise AssertionError

    def needed(self, drawn: Sequence[str]) -> int:
        """Return the smallest number of the drawn sites that completes a round."""
        table = self.experiment.privacy
        return max(min(self.place.min_sites, len(drawn)), table.sites if table.masks else 0)

    def gather(self, drawn: Sequence[str], number: int, patience_s: float) -> list[str]:
        """Wait for enough of the drawn sites and return them; wait for all of them for at most `patience_s` seconds."""
        begin = time.monotonic()
        need = self.needed(drawn)
        while True:
            there = [name for name in self.present() if name in drawn]
            patient = time.monotonic() - begin < patience_s
            if len(there) == len(drawn) or (len(there) >= need and not patient):
                return there
            missing = [name for name in drawn if name not in there]
            until = f", at most {patience_s:.0f} s for all" if patient and len(there) >= need else ""
            self.say(f"round {number} waits for {', '.join(missing)}: {len(there)} there, {need} needed{until}")
            time.sleep(LOOK)

    def say(self, line: str) -> None:
        """Log a line unless it was the last one logged here."""
        if line != self.told:
            log.info(line)
            self.told = line

    def personal(self) -> Mapping[str, Arrays]:
        """See `Backend`; what sites keep for themselves is not known here."""
        return {}

    def evaluate(self, round_number: int, weights: Arrays, split: str) -> Scores:
        """See `Backend`; every connected site's scores, none if fewer than the quorum have any.

        Sites whose update was just averaged may have lost their connection since, and have some time to come back.
        """
        took_part = sorted(name for name, counted in self.counted.items() if counted == round_number)
        self.gather(took_part, round_number, min(RETURN_S, self.place.deadline_s))
        found = self.train_ahead(round_number) if split == "val" else {}
        line = self.line(max(self.place.deadline_s, 1.0))
        if others := [name for name in self.present() if name not in found]:
            found |= line.evaluate(others, round_number, weights, split)
        for reason in line.left_out.values():
            log.warning("round %d is not scored at %s", round_number, reason)
        scores = {name: dict(values) for name, values in sorted(found.items()) if self._credible(name, values)}
        return scores if len(scores) >= self.place.min_sites else {}

    def train_ahead(self, round_number: int) -> dict[str, Scalars]:
        """Ask for the scores of a round and for the next round in one message; return the scores by site.

        If too few sites answer, the next round is left to `train`. Not under masks, where no round can be repeated.
        """
        before, last = self.before, self.experiment.training.rounds
        if before is None or before.round != round_number or round_number == last or self.experiment.privacy.masks:
            return {}
        drawn = self.drawn(round_number + 1)
        there = [name for name in self.present() if name in drawn]
        if len(there) < self.needed(drawn):
            return {}
        line = self.line(self.place.deadline_s, self.needed(drawn), among=there)
        try:
            self.ahead = self.trained(
                drawn, there, line, *line.train(self.method, before, self.model, there, split="val")
            )
        except HarmoFLError as error:
            log.warning("%s; round %d is tried again", error, round_number + 1)
        return dict(line.scores)

    def num_images(self) -> Mapping[str, Mapping[str, int]]:
        """See `Backend`."""
        described = sorted(self.described.items())
        return {name: dict(zip(SPLITS, map(int, said["num_images"]), strict=True)) for name, said in described}

    def remarks(self) -> list[str]:
        """See `Backend`."""
        drawn = len(self.drawn(1))
        own = remarks_on_method(self.experiment, self.method, self.model, drawn)
        return [*own, *statement(self.experiment, self.method, deployed=True)]

    def test(self, run_dir: RunDir, best_round: int) -> Scores:
        """See `Backend`; asked again until enough sites answer."""
        weights, _ = run_dir.load_model()
        for attempt in range(1, TRIES + 1):
            self.gather(sorted(self.place.keys), self.experiment.training.rounds, self.place.deadline_s)
            if test := self.evaluate(best_round, weights, "test"):
                break
            if attempt == TRIES:
                need = self.place.min_sites
                raise RunError(f"at least {need} sites must test the chosen model, but do not; serve again for that")
            time.sleep(PAUSE)
        if tells_statistics(self.experiment.privacy, self.model):
            run_dir.save_moments(self.statistics(best_round, weights))
        return test

    def statistics(self, number: int, weights: Arrays) -> dict[str, dict[str, Tensor]]:
        """Return the statistics for inference of the model's layers that normalize by batches, by site."""
        line = self.line(max(self.place.deadline_s, 1.0))
        found, reasons = {}, []
        for name, said in sorted(line.evaluate(self.present(), number, weights, STATISTICS).items()):
            try:
                found[name] = from_lists(self.model, said)
            except RunError as error:
                reasons.append(f"{name}: {error}")
        for reason in (*line.left_out.values(), *reasons):
            log.warning("the model is kept without the statistics of a site: %s", reason)
        return found

    def _credible(self, name: str, values: Mapping[str, Any]) -> bool:
        """Return True if the values have the form of scores; their correctness cannot be checked here."""
        metric, named = values.get(self.metric), all(key.isidentifier() and len(key) < 40 for key in values)
        fine = named and len(values) < 40 and all(type(value) is float for value in values.values())
        if fine and isinstance(metric, float) and math.isfinite(metric):
            return True
        log.warning("%s: %s must be a finite number among the scores, which are left out", name, self.metric)
        return False

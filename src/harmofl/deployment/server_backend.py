"""Rounds, scores and the test of a deployment: the backend whose sites answer over a network."""

import logging
import math
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import torch
from torch import Tensor, nn

from harmofl.backends.remote import RemoteRounds
from harmofl.data.manifest import SPLITS
from harmofl.deployment.folders import refuse_arrangement
from harmofl.deployment.site_descriptions import STATISTICS
from harmofl.deployment.site_registry import LOOK, VERSION, SiteRegistry
from harmofl.errors import HarmoFLError, RunError
from harmofl.experiment.backend import TrainedRound
from harmofl.experiment.checkpoint import Checkpoint
from harmofl.experiment.config import resolved, to_toml
from harmofl.experiment.model_build import build_model
from harmofl.experiment.model_card import check_metric, main_metric, model_card
from harmofl.experiment.privacy_policy import check_method, check_model_privacy, statement, tells_statistics
from harmofl.experiment.remarks import remarks_on_method
from harmofl.experiment.round_record import Scores
from harmofl.experiment.run_dir import RunDir
from harmofl.experiment.taking_part import draw_sites
from harmofl.experiment.volume_checks import check_volumes
from harmofl.federated.downlink import moved
from harmofl.federated.messages import ClientUpdate, ServerState
from harmofl.federated.tensors import Arrays
from harmofl.federated.wire import Scalars
from harmofl.methods import FedAvg
from harmofl.models.bn_calibration import from_lists

log = logging.getLogger("harmofl")
TRIES, PAUSE = 5, 5.0
"""Number of tries for a round that too few sites complete, and the pause between tries in seconds."""
RETURN_S = 60.0
"""Seconds for a site to come back before it is not asked for scores."""


@dataclass
class Server(SiteRegistry):
    """The server of one federation, a `Backend` whose sites answer over a network.

    Args:
        begun: whether this process has begun a round; its first one waits for all sites.
        before: the state after the last round.
        ahead: the next round, trained by the messages that asked for the scores of the last one.
        lost: rounds in a row that were lost under masks.
    """

    begun: bool = False
    before: ServerState | None = None
    ahead: TrainedRound | None = None
    lost: int = 0
    method: FedAvg = field(init=False)
    model: nn.Module = field(init=False)

    @property
    def metric(self) -> str:
        """The metric by which the round is chosen."""
        return main_metric(self.experiment, self.card["task"])

    def open_run_dir(self, first: Mapping[str, Any]) -> RunDir:
        """Return the run folder; create it if there is none."""
        self.experiment = resolved(self.experiment, first["task"])
        check_metric(self.experiment, first["task"])
        check_volumes(self.experiment)
        torch.set_num_threads(self.experiment.run.threads)
        run = self.place.folder / "run"
        if not (run / "config.toml").exists():
            card = model_card(self.experiment, first, sorted(self.place.keys), fingerprint=self.digest, run=self.run)
            RunDir.create(run, to_toml(self.experiment, {"harmofl": VERSION}), card)
        run_dir = RunDir.open(run)
        self.card = run_dir.card()
        self.refuse_others()
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
            done = self.trained(server, drawn, *self.ask(server, drawn, on_client_end))
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
        before: ServerState,
        drawn: Sequence[str],
        there: Sequence[str],
        line: RemoteRounds,
        after: ServerState,
        updates: Sequence[ClientUpdate],
    ) -> TrainedRound:
        """Return a round's result, with the reason for every drawn site that has no part in it."""
        absent = [name for name in drawn if name not in there]
        out = {name: self.refused.get(name, f"{name}: is not connected") for name in absent} | line.left_out
        after = moved(before, after, self.experiment.training.downlink)
        return TrainedRound(after, updates, line.bytes_down, left_out=out)

    def ask(
        self, server: ServerState, drawn: Sequence[str], on_client_end: Callable[[str], None]
    ) -> tuple[list[str], RemoteRounds, ServerState, Sequence[ClientUpdate]]:
        """Run a round until enough sites answer; return asked sites, connection, new server state and updates.

        Under masks no site answers a round twice, so a round without all answers is lost: the weights stay unchanged.
        """
        number = server.round + 1
        patience, self.begun = 0.0 if self.begun else self.place.deadline_s, True
        for attempt in range(1, TRIES + 1):
            there = self.gather(drawn, f"round {number}", patience)
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

    def gather(self, drawn: Sequence[str], what: str, patience_s: float) -> list[str]:
        """Wait for enough of the drawn sites and return them; wait for all of them for at most `patience_s` seconds.

        `what` names that for which they are needed.
        """
        begin = time.monotonic()
        need = self.needed(drawn)
        while True:
            there = [name for name in self.present() if name in drawn]
            patient = time.monotonic() - begin < patience_s
            if len(there) == len(drawn) or (len(there) >= need and not patient):
                self.waits_no_more()
                return there
            missing = [name for name in drawn if name not in there]
            until = f", at most {patience_s:.0f} s for all" if patient and len(there) >= need else ""
            self.say(f"{what} waits for {', '.join(missing)}: {len(there)} there, {need} needed{until}")
            time.sleep(LOOK)

    def personal(self) -> Mapping[str, Arrays]:
        """See `Backend`; what sites keep for themselves is not known here."""
        return {}

    def evaluate(self, round_number: int, weights: Arrays, split: str) -> Scores:
        """See `Backend`; every connected site's scores, none if fewer than the quorum have any.

        Sites whose update was just averaged may have lost their connection since, and have some time to come back.
        """
        took_part = sorted(name for name, counted in self.counted.items() if counted == round_number)
        of_round = f"the {'validation' if split == 'val' else split} of round {round_number}"
        back = self.gather(took_part, of_round, min(RETURN_S, self.place.deadline_s))
        found = self.train_ahead(round_number) if split == "val" else {}
        line = self.line(max(self.place.deadline_s, 1.0))
        if others := sorted({*back, *self.present()} - found.keys()):  # the engine may end just after they were back
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
                before, drawn, there, line, *line.train(self.method, before, self.model, there, split="val")
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
        """See `Backend`; asked again until enough sites answer. The card then names the sites that trained."""
        weights, _ = run_dir.load_model()
        for attempt in range(1, TRIES + 1):
            self.gather(sorted(self.counted), "the test of the chosen model", self.place.deadline_s)
            if test := self.evaluate(best_round, weights, "test"):
                break
            if attempt == TRIES:
                need = self.place.min_sites
                raise RunError(f"at least {need} sites must test the chosen model, but do not; serve again for that")
            time.sleep(PAUSE)
        if tells_statistics(self.experiment.privacy, self.model):
            run_dir.save_moments(self.statistics(best_round, weights))
        counts = {name: counts["test"] for name, counts in self.num_images().items() if name in self.counted}
        run_dir.complete_card(sites=sorted(self.counted), num_tested=counts)
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

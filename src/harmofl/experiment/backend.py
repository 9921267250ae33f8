"""The interface between the training loop and the backends, and the backend for sites on this machine."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from typing import Protocol

import numpy as np
from torch import nn

from harmofl.backends.runner import Runner
from harmofl.backends.sequential import Sequential
from harmofl.data.manifest import SPLITS
from harmofl.evaluation.scoring import case_scores, score, used
from harmofl.experiment.privacy_policy import tells_statistics
from harmofl.experiment.report_arrays import PICTURED, common_spectrum, sample, spectrum
from harmofl.experiment.round_record import Scores
from harmofl.experiment.run_dir import RunDir
from harmofl.experiment.setup import Setup
from harmofl.experiment.trained_model import TrainedModel
from harmofl.federated.downlink import moved
from harmofl.federated.messages import ClientState, ClientUpdate, ServerState
from harmofl.federated.model import normalizer_of
from harmofl.federated.tensors import Arrays, total_bytes
from harmofl.methods import FedAvg
from harmofl.models.bn_calibration import of_site
from harmofl.utils.array_files import array_file, save_arrays
from harmofl.utils.grouping import evenly


@dataclass(frozen=True)
class TrainedRound:
    """The result of one round of a backend.

    Args:
        server: the server's state after the round.
        updates: the sites' updates, sorted by site, without their weights unless a callback reads updates or the
            method's average needs them together; empty if the round was lost.
        bytes_down: bytes that the server sent to all sites of the round.
        kept: bytes of the largest client state, 0 if unknown to the backend.
        left_out: reasons why sites that were drawn have no part in the round, by site.
    """

    server: ServerState
    updates: Sequence[ClientUpdate]
    bytes_down: int
    kept: int = 0
    left_out: Mapping[str, str] = field(default_factory=dict)


class Backend(Protocol):
    """The interface of a backend, which trains at the sites: in this process, in several, or in hospitals.

    Attributes:
        method: the federated learning method.
        model: a model with the trained architecture.
    """

    method: FedAvg
    model: nn.Module

    def keep(self, rounds: Sequence[int]) -> None:
        """Keep the client states of these rounds, from which training may resume."""

    def train(self, server: ServerState, on_client_end: Callable[[str], None]) -> TrainedRound:
        """Train the round after `server` at its sites."""

    def personal(self) -> Mapping[str, Arrays]:
        """Return the personal weights by site, as far as the backend knows them."""

    def evaluate(self, round_number: int, weights: Arrays, split: str) -> Scores:
        """Return the scores of a round's weights at all sites; empty if too few sites could score them."""

    def test(self, run_dir: RunDir, best_round: int) -> Scores:
        """Score the chosen model on the test images of every site, also unseen ones, and save the report's arrays."""

    def num_images(self) -> Mapping[str, Mapping[str, int]]:
        """Return the number of images by site and split."""

    def remarks(self) -> list[str]:
        """Return the remarks for a reader of the results, in plain words."""


class LocalBackend:
    """Backend for sites with images on this machine.

    Args:
        setup: the experiment with its images.
        run_dir: stores the client states.
        runner: runs rounds and scores weights; in this process if not given.
        whole_updates: True to return updates with all their tensors, which are then held during a round.
    """

    def __init__(
        self, setup: Setup, run_dir: RunDir, runner: Runner | None = None, whole_updates: bool = False
    ) -> None:
        self.setup, self.method, self.model = setup, setup.method, setup.training.model
        self._runner, self._run_dir = runner or Sequential(setup.score_of), run_dir
        self._whole_updates = whole_updates
        self._personal: dict[str, Arrays] = {}
        self._remember(run_dir.states)

    def _remember(self, states: Mapping[str, Mapping[str, Arrays]]) -> None:
        for site, state in states.items():
            if entries := self.method.personal_weights(state):
                self._personal[site] = entries

    def keep(self, rounds: Sequence[int]) -> None:
        """Do nothing: the checkpoint names the client states that it needs."""

    def train(self, server: ServerState, on_client_end: Callable[[str], None]) -> TrainedRound:
        """See `Backend`."""
        setup = self.setup
        sites, sizes = setup.drawn(server.round + 1), list[int]()

        def keep(site: str, state: ClientState) -> None:
            self._run_dir.states.keep(server.round + 1, {site: state})
            self._remember({site: state})
            sizes.append(total_bytes(state))

        given = (setup.method, server, sites, self._run_dir.states, setup.training, on_client_end)
        after, kept, updates = self._runner.run_round(*given, None if self._whole_updates else keep)
        for site, state in kept.items():
            keep(site, state)
        after, down = moved(server, after, setup.downlink), setup.bytes_down(server, len(updates))
        return TrainedRound(after, updates, down, max(sizes))

    def personal(self) -> Mapping[str, Arrays]:
        """See `Backend`."""
        return self._personal

    def evaluate(self, round_number: int, weights: Arrays, split: str) -> Scores:
        """See `Backend`."""
        used_at = used(self.method, weights, self._personal)
        own = {
            site.name: {name: value for name, value in used_at(site.name).items() if value is not weights.get(name)}
            for site in self.setup.federation.sites
        }
        return self._runner.scores(weights, own, split)

    def num_images(self) -> Mapping[str, Mapping[str, int]]:
        """See `Backend`."""
        sites = (*self.setup.federation.sites, *self.setup.unseen)
        return {site.name: {split: len(site.split(split)) for split in SPLITS} for site in sites}

    def remarks(self) -> list[str]:
        """See `Backend`."""
        return self.setup.cautions()

    def test(self, run_dir: RunDir, best_round: int) -> Scores:
        """See `Backend`; at unseen sites the model runs as in `harmofl evaluate` and `harmofl predict`."""
        setup, model = self.setup, self.model
        weights, own = run_dir.load_model()
        used_at = used(self.method, weights, own)
        elsewhere = TrainedModel(run_dir.card(), setup.method, model, weights, own)
        scores, cases, probabilities, moments = {}, {}, {}, {}
        keeps = tells_statistics(setup.experiment.privacy, model)
        pictured = {site.name for site in (*evenly(setup.unseen, PICTURED), *evenly(setup.federation.sites, PICTURED))}
        unseen = {site.name for site in setup.unseen}
        with array_file(run_dir.folder / "samples.npz") as add_samples:
            for site in (*setup.federation.sites, *setup.unseen):
                if site.name in unseen:
                    outputs = elsewhere.outputs(site, "test", device=str(setup.training.device))
                else:
                    outputs = setup.predict(site, "test", used_at(site.name))
                scores[site.name] = score(outputs, site, "test")
                of_cases = case_scores(setup.metric, outputs, site, "test")
                cases[site.name] = asdict(of_cases)
                if site.name in pictured:
                    add_samples(sample(site, outputs, of_cases, normalizer_of(model)))
                if site.task == "classification":
                    probabilities[f"{site.name}/probabilities"] = np.asarray(outputs)
                    probabilities[f"{site.name}/targets"] = np.asarray(site.test.targets)
                if keeps and site.name not in unseen:
                    moments[site.name] = of_site(model, site.train, setup.training.device)
        if moments:
            run_dir.save_moments(moments)
        for name, found in {"probabilities": probabilities, "amplitudes": self._amplitudes()}.items():
            if found:
                save_arrays(run_dir.folder / f"{name}.npz", found)
        run_dir.save_cases(cases)
        return scores

    def _amplitudes(self) -> dict[str, np.ndarray]:
        """Return the spectra of some sites and the common one; empty without an amplitude of the whole spectrum."""
        layer = normalizer_of(self.model)
        common = None if layer is None else common_spectrum(layer)
        if common is None:
            return {}
        sites = evenly(self.setup.federation.sites, PICTURED)
        return {"common": common, **{f"sites/{site.name}": spectrum(site) for site in sites}}

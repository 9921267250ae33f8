"""Protection of a site's update before it is sent: noise and masks from secrets of the site."""

import json
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
from cryptography.hazmat.primitives.asymmetric import ec
from scipy.special import ndtri

from harmofl.deployment.folders import SiteKit
from harmofl.errors import TrainingError
from harmofl.experiment.privacy_policy import noise_of
from harmofl.experiment.tables import PrivacyTable
from harmofl.federated.compression import narrowed
from harmofl.federated.messages import Broadcast, ClientUpdate
from harmofl.federated.tensors import Arrays
from harmofl.privacy.secure_aggregation import label_of, masked, secret_of, stream
from harmofl.types import WeightFormat
from harmofl.utils.atomic_files import strict_json, write_atomic

SENT = "sent.json"
"""File in a site's folder that tells which updates with noise were sent."""


@dataclass(frozen=True)
class Cover:
    """Noise and masks as set by the [privacy] table.

    Args:
        place: the site's folder.
        key: the site's private key.
        table: the agreed [privacy] table.
        rounds: number of rounds that the privacy statement covers.
        updates: format of the weights in an update.
        params: the trained entries of the weights.
    """

    place: SiteKit
    key: ec.EllipticCurvePrivateKey
    table: PrivacyTable
    rounds: int
    updates: WeightFormat = "float32"
    params: Sequence[str] = ()

    def put(
        self,
        update: ClientUpdate,
        broadcast: Broadcast,
        run: str,
        among: Sequence[str],
        kept: Path,
        residual: "Arrays | None" = None,
    ) -> tuple[ClientUpdate, Arrays]:
        """Return the protected update, and the new residual, see `harmofl.federated.compression`.

        Args:
            update: the update of this site.
            broadcast: the server's message.
            run: the server's name for the run.
            among: names of the sites whose updates the server will sum.
            kept: the folder in which the site records its answers.
            residual: the residual of the site's last update.

        Raises:
            TrainingError: if the requested sum would reveal one site's update, or if the privacy statement covers no
                further update.
        """
        if noise := noise_of(self.table):
            self._spend(label_of(f"noise {run}", among, broadcast))
            update = noise.added(update, broadcast, self._normals(update, run, broadcast.round))
        update, left = narrowed(update, broadcast, self.updates, residual or {}, self.params)
        if not self.table.masks:
            return update, left
        self._check(among)
        label = label_of(run, among, broadcast)
        self._once(kept / "masked.json", broadcast.round, label)
        peers = {name: self.place.keys[name] for name in among}
        covered = masked(update.weights, self.place.name, self.key, peers, label)
        return replace(update, weights=covered, extras={}), {}  # no mask covers an amplitude that is sent again

    def _spend(self, label: str) -> None:
        """Record that an update with noise is sent, in all runs of this folder; a repeated one is none more."""
        path = self.place.folder / SENT
        sent: list[str] = json.loads(path.read_text()) if path.exists() else []
        if label in sent:
            return
        if len(sent) >= self.rounds:
            raise TrainingError(
                f"{self.place.name}: privacy.noise covers {self.rounds} updates (training.rounds), and as many were "
                f"sent; agree on a new federation, whose noise is counted with this one's"
            )
        write_atomic(path, strict_json([*sent, label]).encode())

    def _normals(self, update: ClientUpdate, run: str, round_number: int) -> "SecretNormals":
        """Return noise that is equal for equal updates, so that a repeated answer reveals nothing more."""
        label = label_of(f"noise {run}", [update.site], Broadcast(round_number, update.weights))
        return SecretNormals(secret_of(self.key), label)

    def _check(self, among: Sequence[str]) -> None:
        name, sites = self.place.name, set(among)
        if name not in sites or len(sites) < self.table.sites:
            raise TrainingError(
                f"{name}: a sum must be over at least {self.table.sites} sites (privacy.sites), this one among them, "
                f"got {', '.join(sorted(sites)) or 'none'}"
            )
        if unknown := sorted(sites - self.place.keys.keys()):
            raise TrainingError(
                f"{name}: sites/ must hold the public key of each site of a sum, but has none of {unknown[0]}; get it "
                "from who made the folders"
            )

    def _once(self, path: Path, round_number: int, label: str) -> None:
        """Allow one answer a round, since the difference of two sums may be one site's update."""
        answered: dict[str, str] = json.loads(path.read_text()) if path.exists() else {}
        if answered.get(str(round_number), label) != label:
            raise TrainingError(
                f"{self.place.name}: round {round_number} was answered already, for other sites or weights; under "
                "masks no round is answered twice"
            )
        path.parent.mkdir(parents=True, exist_ok=True)
        write_atomic(path, strict_json({**answered, str(round_number): label}).encode())


class SecretNormals:
    """Standard normal numbers that cannot be predicted without the secret.

    Args:
        secret: secret of the site.
        label: purpose of the numbers; another label gives other numbers.
    """

    def __init__(self, secret: bytes, label: str) -> None:
        self._secret, self._label, self._calls = secret, label, 0

    def __call__(self, count: int) -> np.ndarray:
        """Return `count` float64 numbers, new ones at each call."""
        self._calls += 1
        bits = stream(self._secret, f"{self._label} {self._calls}", count)
        normal: np.ndarray = ndtri(((bits >> np.uint64(11)) + 0.5) * 2.0**-53)
        return normal

"""What becomes of a site's update before it leaves: noise and masks that nobody but the site could make."""

import json
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
from cryptography.hazmat.primitives.asymmetric import ec
from scipy.special import ndtri

from harmofl.deployment.folders import SiteKit
from harmofl.errors import TrainingError
from harmofl.experiment.config import PrivacyTable
from harmofl.experiment.privacy_policy import noise_of
from harmofl.federated.compression import compressed
from harmofl.federated.messages import Broadcast, ClientUpdate
from harmofl.privacy.secure_aggregation import label_of, masked, secret_of, stream
from harmofl.utils.atomic_files import strict_json, write_atomic


@dataclass(frozen=True)
class Cover:
    """Noise and masks as the [privacy] table asks for.

    Args:
        place: the site's folder.
        key: its private key.
        table: what was agreed on.
        small: whether moves are sent in bfloat16.
    """

    place: SiteKit
    key: ec.EllipticCurvePrivateKey
    table: PrivacyTable
    small: bool = False

    def put(
        self, update: ClientUpdate, broadcast: Broadcast, run: str, among: Sequence[str], kept: Path
    ) -> ClientUpdate:
        """The update as it may leave.

        Args:
            update: of this site.
            broadcast: what the server sent.
            run: its name for the run.
            among: whose updates it will sum.
            kept: the folder in which the site remembers what it answered.

        Raises:
            TrainingError: if the server asks for a sum that would show one site's update.
        """
        if noise := noise_of(self.table):
            update = noise.added(update, broadcast, self._normals(update, run, broadcast.round))
        if self.small:
            update = replace(update, weights=compressed(update.weights, broadcast.weights))
        if not self.table.masks:
            return update
        self._check(among)
        label = label_of(run, among, broadcast)
        self._once(kept / "masked.json", broadcast.round, label)
        peers = {name: self.place.keys[name] for name in among}
        covered = masked(update.weights, self.place.name, self.key, peers, label)
        return replace(update, weights=covered, extras={})  # no mask covers an amplitude that is sent again

    def _normals(self, update: ClientUpdate, run: str, round_number: int) -> "SecretNormals":
        """The same for the same update, so that an answer sent twice tells nothing more."""
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
        """One answer a round: the difference between two sums may be one site's update."""
        answered: dict[str, str] = json.loads(path.read_text()) if path.exists() else {}
        if answered.get(str(round_number), label) != label:
            raise TrainingError(
                f"{self.place.name}: round {round_number} was answered already, for other sites or weights; under "
                "masks no round is answered twice"
            )
        path.parent.mkdir(parents=True, exist_ok=True)
        write_atomic(path, strict_json({**answered, str(round_number): label}).encode())


class SecretNormals:
    """Standard normal numbers that nobody can foretell without the secret.

    Args:
        secret: of the site.
        label: what they are for.
    """

    def __init__(self, secret: bytes, label: str) -> None:
        self._secret, self._label, self._calls = secret, label, 0

    def __call__(self, count: int) -> np.ndarray:
        """So many, float64, others at each call."""
        self._calls += 1
        bits = stream(self._secret, f"{self._label} {self._calls}", count)
        normal: np.ndarray = ndtri(((bits >> np.uint64(11)) + 0.5) * 2.0**-53)
        return normal

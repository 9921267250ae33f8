"""What server and sites agree on: method, network, training; and each site's own images."""

from collections.abc import Mapping
from pathlib import Path

import numpy as np
import torch

from harmofl import Training, open_federation
from harmofl.data.site import Site
from harmofl.ingest.synthetic.federation import (
    write_federation,  # images drawn on the spot; open your own folder instead
)
from harmofl.methods import SAM, Amplitude, FedAvg
from harmofl.models import build_network

METHOD = FedAvg(normalize=Amplitude(band=1.0), step=SAM(rho=0.05))  # which is HarmoFL
ROUNDS = 2


def training() -> Training:
    """How every site trains."""
    network = build_network("unet", channels=3, classes=2, norm="instance", seed=0, options={"features": 4})
    return Training(
        model=METHOD.model(network),
        loss=torch.nn.functional.cross_entropy,
        optimizer=lambda params: torch.optim.SGD(params, lr=0.05, momentum=0.9),
        batch_size=4,
    )


def site(number: int) -> Site:
    """The images of this building, in a folder of its own."""
    folder = Path(f"site-{number}-data")
    if not (folder / "federation.toml").exists():
        write_federation(folder, sites=2, images=8, size=32, seed=0)
    return open_federation(folder).sites[number]


def numbered(name: str) -> int:
    """NVFlare calls its sites site-1, site-2, ..."""
    return int(name.rpartition("-")[2]) - 1


def to_arrays(weights: Mapping[str, torch.Tensor]) -> dict[str, np.ndarray]:
    """As NVFlare sends them."""
    return {name: value.numpy() for name, value in weights.items()}


def to_torch(params: Mapping[str, np.ndarray]) -> dict[str, torch.Tensor]:
    """As HarmoFL wants them."""
    return {name: torch.as_tensor(value).clone() for name, value in params.items()}

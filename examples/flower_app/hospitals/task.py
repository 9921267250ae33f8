"""What server and sites agree on: method, network, training; and each site's own images."""

from pathlib import Path

import torch

from harmofl import Training, open_federation
from harmofl.data.site import Site
from harmofl.ingest.synthetic.federation import (
    write_federation,  # images drawn on the spot; open your own folder instead
)
from harmofl.methods import SAM, Amplitude, FedAvg
from harmofl.models import build_network

METHOD = FedAvg(normalize=Amplitude(band=1.0), step=SAM(rho=0.05))  # which is HarmoFL
DATA = Path("hospitals-data")


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
    """The images of this building."""
    if not (DATA / "federation.toml").exists():
        write_federation(DATA, sites=2, images=8, size=32, seed=0)
    return open_federation(DATA).sites[number]

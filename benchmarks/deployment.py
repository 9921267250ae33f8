"""What a round between processes costs beside its training: server and three sites on loopback, with certificates.

    python benchmarks/deployment.py --rounds 10

The U-Net of 7.76 M params on a few 32x32 images, so that training and scoring are next to nothing. Printed for the same
federation: a round of each engine, also with updates in bfloat16, the same round in the plain loop, and a round of
Flower's own processes and FedAvg, which train and score nothing and have no TLS. Wall time is the mean from the end of
the first round to that of the last but one (of the plain loop the median of a round); processor time is that of the
whole machine meanwhile, which must do nothing else.
"""

import argparse
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from statistics import median

import psutil

sys.path.insert(0, str(Path(__file__).resolve().parents[1] / "tests"))
from deployments import SITES, Deployment, free_port
from stock_flower import seconds as stock_seconds

from harmofl import run
from harmofl.experiment.config import load_experiment
from harmofl.experiment.run_dir import RunDir
from harmofl.ingest.synthetic.federation import write_federation

VARIANTS = {
    "NVFlare, mTLS": ("nvflare", {}),
    "Flower behind nginx, TLS, keys": ("flower", {}),
    "NVFlare, updates in bfloat16": ("nvflare", {"training.updates": "bfloat16"}),
    "Flower, updates in bfloat16": ("flower", {"training.updates": "bfloat16"}),
}


class Clock:
    """Wall and processor seconds of this machine."""

    def __init__(self) -> None:
        self.wall, self.busy = time.monotonic(), self._busy()

    def _busy(self) -> float:
        times = psutil.cpu_times()
        return float(times.user + times.nice + times.system)

    def since(self, rounds: int) -> tuple[float, float]:
        """Wall and processor seconds per round since it was made."""
        return (time.monotonic() - self.wall) / rounds, (self._busy() - self.busy) / rounds


def wait(holds: Callable[[], bool]) -> None:
    while not holds():
        time.sleep(0.05)


def deployed(folder: Path, data: Path, engine: str, settings: dict[str, object]) -> tuple[float, float]:
    rounds = settings["training.rounds"]
    with Deployment(folder, data, settings, engine) as deployment:
        deployment.start_all()
        wait(lambda: deployment.rounds() >= 1)
        clock = Clock()
        wait(lambda: deployment.rounds() >= rounds - 1)  # the last one trains no further round while it is scored
        found = clock.since(rounds - 2)
        for party in ("server", *SITES):
            assert deployment.ended(party) == 0, deployment.said(party)
    return found


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=10)
    rounds = parser.parse_args().rounds
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        data = folder / "data"
        write_federation(data, sites=3, images=6, size=32)
        settings = {"method.name": "fedavg", "training.rounds": rounds, "network.name": "unet", "run.threads": 1}
        print("| a round of three sites, 7.76 M params, one thread each | seconds | processor seconds |\n|---|---|---|")

        def show(label: str, wall: float, busy: float = float("nan")) -> None:
            print(f"| {label} | {wall:.2f} | {busy:.2f} |", flush=True)

        run(load_experiment(None, {**settings, "data.folder": str(data)}), folder / "run")
        show("plain loop", median(record["seconds"] for record in RunDir.open(folder / "run").records()[1:]))
        for k, (label, (engine, more)) in enumerate(VARIANTS.items()):
            show(label, *deployed(folder / f"deployment-{k}", data, engine, {**settings, **more}))
        (folder / "stock").mkdir()
        stock = stock_seconds(folder / "stock", rounds, [free_port() for _ in range(4)])
        show("Flower's own processes and FedAvg, no TLS", stock)


if __name__ == "__main__":
    main()

"""What a round between processes costs beside its training: server and three sites on loopback, TLS and keys on.

    python benchmarks/deployment.py --rounds 10

The U-Net of 7.76 M params on a few 32x32 images, so that training is next to nothing. Printed for the same federation:
a round of each engine, of the direct one also with masks and with updates in bfloat16, the same round in the plain
loop, and a round of Flower's own processes and FedAvg, which train nothing and have no TLS (medians of the rounds after
the first).
"""

import argparse
import statistics
import sys
import tempfile
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1] / "tests"))
from deployments import SITES, Deployment, free_port
from stock_flower import seconds as stock_seconds

from harmofl import run
from harmofl.experiment.config import load_experiment
from harmofl.experiment.run_dir import RunDir
from harmofl.ingest.synthetic.federation import write_federation

VARIANTS = {
    "direct, TLS, keys": ({}, {}),
    "direct, updates in bfloat16": ({"training.updates": "bfloat16"}, {}),
    "direct, under masks": ({"privacy.masks": True}, {}),
    "NVFlare, mTLS": ({}, {"engine": "nvflare"}),
    "Flower behind nginx, TLS, keys": ({}, {"engine": "flower"}),
}


def seconds(run_dir: RunDir) -> float:
    return statistics.median(record["seconds"] for record in run_dir.records()[1:])


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=10)
    rounds = parser.parse_args().rounds
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        write_federation(folder / "data", sites=3, images=6, size=32)
        settings = {
            "method.name": "fedavg",
            "training.rounds": rounds,
            "network.options": {},
            "evaluation.every": rounds,
        }
        found = {}
        for label, (more, options) in VARIANTS.items():
            with Deployment(folder / label, folder / "data", {**settings, **more}, **options) as deployed:
                deployed.start_all()
                for party in ("server", *SITES):
                    assert deployed.ended(party, 600) == 0, deployed.said(party)
                found[label] = seconds(RunDir.open(deployed.folder / "server" / "run"))
        asked = {**deployed.settings, "data.folder": str(folder / "data"), "privacy.masks": False}
        (folder / "stock").mkdir()
        found["Flower's own processes and FedAvg, no TLS"] = stock_seconds(
            folder / "stock", rounds, [free_port() for _ in range(4)]
        )
        run(load_experiment(None, asked), folder / "run")
        found["plain loop"] = seconds(RunDir.open(folder / "run"))
    print("| a round of three sites, 7.76 M params, one thread each | seconds |\n|---|---|")
    for label, value in found.items():
        print(f"| {label} | {value:.2f} |")


if __name__ == "__main__":
    main()

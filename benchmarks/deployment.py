"""What a round between processes costs beside its training: server and three sites on loopback, TLS and keys on.

    python benchmarks/deployment.py --rounds 10

The U-Net of 7.76 M params on a few 32x32 images, so that training is next to nothing. Printed for the same federation:
a round through Flower, and the same round in the plain loop (median of the rounds after the first, as recorded).
"""

import argparse
import statistics
import sys
import tempfile
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1] / "tests"))
from deployments import SITES, Deployment

from harmofl import run
from harmofl.config import load_experiment
from harmofl.data.synthetic import write_federation
from harmofl.journal import Journal


def seconds(journal: Journal) -> float:
    return statistics.median(record["seconds"] for record in journal.records()[1:])


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
        with Deployment(folder / "deployment", folder / "data", settings) as deployed:
            deployed.start_all()
            for party in ("server", *SITES):
                assert deployed.ended(party, 600) == 0, deployed.said(party)
            through = seconds(Journal.open(deployed.folder / "server" / "run"))
            asked = {**deployed.settings, "data.folder": str(folder / "data")}
        run(load_experiment(None, asked), folder / "run")
        plain = seconds(Journal.open(folder / "run"))
    print("| a round of three sites, 7.76 M params, one thread each | seconds |\n|---|---|")
    print(f"| between processes, TLS, keys | {through:.2f} |\n| plain loop | {plain:.2f} |")


if __name__ == "__main__":
    main()

"""What fixed statistics cost a network that normalizes by batches, at sites that trained and at one that did not.

    python benchmarks/statistics_for_use.py --data FOLDER --out runs/statistics

Trains HarmoFL with network.norm=batch-stats on configs/nuclei.toml and configs/bloodcells.toml without one site, three
seeds, and scores the chosen model with every choice of --statistics: validation images, by which the default was
chosen, and test images. FOLDER holds nuclei/ and bloodcells/.
"""

import argparse
from pathlib import Path

import numpy as np

from harmofl.data.site import open_federation
from harmofl.experiment.config import load_experiment
from harmofl.experiment.trained_model import TrainedModel
from harmofl.experiment.trainer import run
from harmofl.inference.evaluate import evaluate_site
from harmofl.types import STATISTICS

HERE = Path(__file__).parent
LEFT_OUT = {"nuclei": "E_tissue_white", "bloodcells": "B_bccd"}
ROUNDS = {"nuclei": 10, "bloodcells": 8}


def trained(name: str, seed: int, data: Path, out: Path) -> Path:
    folder = out / f"{name}-{seed}"
    if not (folder / "result.json").exists():
        changes = {
            "data.folder": str(data / name),
            "data.unseen": [LEFT_OUT[name]],
            "network.norm": "batch-stats",
            "training.rounds": ROUNDS[name],
            "run.seed": seed,
            "run.threads": 1,
        }
        run(load_experiment(HERE.parent / "configs" / f"{name}.toml", changes), folder)
    return folder


def scores(folder: Path, data: Path, unseen: str) -> dict[tuple[str, str, str], float]:
    model = TrainedModel.open(folder)
    size, channels = model.card["size"], model.card["channels"]
    federation = open_federation(data, size=(size[0], size[1]), channels=channels)
    found = {}
    for statistics in STATISTICS:
        for split in ("val", "test"):
            by_site = {
                site.name: evaluate_site(model, site, split, statistics).scores[model.metric]
                for site in federation.sites
            }
            found[statistics, split, "new"] = by_site.pop(unseen)
            found[statistics, split, "trained"] = float(np.mean(list(by_site.values())))
    return found


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, required=True)
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--seeds", type=int, default=3)
    given = parser.parse_args()
    print("| | statistics | validation, trained sites | validation, new site | test, trained sites | test, new site |")
    print("|---|---|---|---|---|---|")
    for name, unseen in LEFT_OUT.items():
        folders = [trained(name, seed, given.data, given.out) for seed in range(given.seeds)]
        found = [scores(folder, given.data / name, unseen) for folder in folders]
        for statistics in STATISTICS:
            cells = [
                f"{np.mean(values):.3f} ({np.std(values, ddof=1):.3f})"
                for split in ("val", "test")
                for where in ("trained", "new")
                for values in [[one[statistics, split, where] for one in found]]
            ]
            print(f"| {name} | {statistics} | {' | '.join(cells)} |", flush=True)


if __name__ == "__main__":
    main()

"""What `harmofl plan` says of a run against what the run then takes.

python benchmarks/forecast.py --data ../shared/data --out runs/forecast
"""

import argparse
import json
import statistics
import time
from pathlib import Path

from harmofl import run
from harmofl.experiment.config import load_experiment
from harmofl.experiment.cost_estimate import estimate_cost
from harmofl.experiment.run_dir import RunDir

CASES = (
    ("bloodcells", {"method.name": "fedavg", "training.rounds": 6}),
    ("bloodcells", {"method.name": "harmofl", "training.rounds": 4}),
    ("nuclei", {"method.name": "harmofl", "training.rounds": 4}),
    ("nuclei", {"method.name": "scaffold", "training.rounds": 4, "training.participation": 0.5}),
)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, default=Path("../shared/data"))
    parser.add_argument("--out", type=Path, default=Path("runs/forecast"))
    given = parser.parse_args()
    print("| run | a round, said | was | in all, said | was | wire, said | was |\n|---|---|---|---|---|---|---|")
    for number, (dataset, changes) in enumerate(CASES):
        config = Path(__file__).parent.parent / "configs" / f"{dataset}.toml"
        experiment = load_experiment(config, {"data.folder": str(given.data / dataset), **changes})
        said = estimate_cost(experiment, lambda site, done, total: None)
        begin = time.perf_counter()
        folder = given.out / str(number)
        run(experiment, folder)
        took = time.perf_counter() - begin
        records = RunDir(folder).records()
        a_round = statistics.median(record["seconds"] for record in records)
        sent = sum(record["bytes_up"] + record["bytes_down"] for record in records)
        round_said = said.training + said.validation + said.rest
        title = f"{dataset}, {json.dumps(changes)[1:-1]}".replace('"', "")
        cells = (
            title,
            f"{round_said:.2f} s",
            f"{a_round:.2f} s ({round_said / a_round - 1:+.0%})",
            f"{said.seconds:.0f} s",
            f"{took:.0f} s ({said.seconds / took - 1:+.0%})",
            f"{said.wire / 1e6:.1f} MB",
            f"{sent / 1e6:.1f} MB",
        )
        print(f"| {' | '.join(cells)} |", flush=True)


if __name__ == "__main__":
    main()

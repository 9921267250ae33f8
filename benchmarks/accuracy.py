"""Every method on real images from several sites: the tables of docs/results/methods.md.

    python benchmarks/accuracy.py run --data ../shared/data --out runs/accuracy --workers 2
    python benchmarks/accuracy.py table --data ../shared/data --out runs/accuracy

`run` goes on where it was stopped. It begins from what `pack` wrote into benchmarks/results, so that nobody needs to
train again what is there; `--afresh` trains all of it. Settings are those of configs/bloodcells.toml and
configs/nuclei.toml; hyperparameters are each method's defaults, nothing is chosen on test scores.
"""

from collections.abc import Iterator
from pathlib import Path

from packed import arguments, pack

from harmofl.comparison.formats import markdown
from harmofl.comparison.outcomes import collect
from harmofl.comparison.plan import Job, check_earlier
from harmofl.comparison.progress import rounds_bar
from harmofl.comparison.score_table import compare
from harmofl.comparison.study import Study
from harmofl.comparison.variants import ABLATION, parse_variants
from harmofl.comparison.workers import carry_out
from harmofl.experiment.config import load_experiment

DATASETS = ("bloodcells", "nuclei")

REGIMES = ("batch-stats", "batch", "group", "instance")
PAPER = (
    "fedavg,fedprox,fednova,fedadam,fedbn,moon,fedsam,scaffold,local,pooled,"
    "local on its own whole amplitude=local+amplitude"
)
IMAGE = "fedavg+profile:radial_bins=32"
SITE = "fedavg+profile:radial_bins=32:per=site"
HARMOFL = (
    "harmofl,harmofl band 0.1=harmofl:band=0.1,harmofl-released,amplitude alone=harmofl:rho=0,"
    f"profile={IMAGE}+sam,profile of the site={SITE}+sam,profile of the site alone={SITE},"
    "half the profile of the site alone=harmofl-profile"
)
FURTHER = (
    "fedavgm,fedyogi,feddyn,silobn,fedasam,mofedsam,fedgamma,fedspeed,fedsmoo,fedlesam,fedfa,feddg,ditto,fedrep,"
    "fedavg by samples=fedavg:weighting=samples,fedsam 0.5=fedsam:rho=0.5,fedsam 0.005=fedsam:rho=0.005,"
    "level alone=harmofl:band=0:rho=0,half the amplitude alone=harmofl:rho=0:strength=0.5,"
    f"profile alone={IMAGE},half the profile alone={IMAGE}:strength=0.5,joint profile alone={IMAGE}:shared_gain=true,"
    "level and contrast alone=fedavg+profile:radial_bins=1,half the profile of the site=harmofl-profile+sam,"
    "fedbn with perturbation=fedbn+sam,"
    "fedbn with half the profile of the site=fedbn+profile:per=site:strength=0.5"
)
OURS = "half the profile of the site alone=harmofl-profile"
LEFT_OUT = f"fedavg,fedsam,harmofl,harmofl-released,{OURS}"
RUNNING = f"fedavg,fedbn,silobn,fedsam,harmofl,harmofl-released,{OURS}"


def studies(dataset: str, data: Path, out: Path) -> dict[str, list[Study]]:
    """What is run, by the title of its table; one table may be of several studies."""

    def study(methods: str, seeds: int, folder: str, left_out: bool = False, **settings: object) -> Study:
        changes = {"data.folder": str(data / dataset), "data.cache": str(out / "cache"), "run.threads": 1}
        config = Path(__file__).parent.parent / "configs" / f"{dataset}.toml"
        base = load_experiment(config, changes | {k.replace("__", "."): v for k, v in settings.items()})
        variants = parse_variants(methods)
        return Study(base, variants, seeds, out / dataset / folder, leave_one_site_out=left_out)

    found = {
        "every method": [study(PAPER, 3, "main"), study(HARMOFL, 3, "main"), study(FURTHER, 1, "main")],
        "one site left out": [study(LEFT_OUT, 1, "left-out", left_out=True)],
        "averaged running statistics": [study(RUNNING, 1, "batch", network__norm="batch")],
    }
    if dataset != "bloodcells":
        del found["averaged running statistics"]
    chosen = found["every method"][0].base.network.norm
    for norm in REGIMES:  # the chosen one is in "every method" already
        found[norm] = [study("fedavg,harmofl", 1, "main" if norm == chosen else norm, network__norm=norm)]
    return found


def ablation(main: list[Study]) -> list[Job]:
    """The runs of "every method" that the paper's ablation is made of."""
    wanted = [(v.method, v.changes) for v in parse_variants(",".join(ABLATION))]
    return [job for study in main for job in study.jobs() if (job.variant.method, job.variant.changes) in wanted]


def regime_table(parts: dict[str, list[Study]]) -> str:
    """Mean validation score by normalization regime, seed 0."""
    lines = ["| regime | FedAvg | HarmoFL, as published | mean |", "|---|---|---|---|"]
    for norm in REGIMES:
        _, outcomes = collect(parts[norm][0].jobs())
        values = [float(outcome.val[0]) for outcome in outcomes]
        if len(values) == 2:
            lines.append(f"| {norm} | {values[0]:.3f} | {values[1]:.3f} | {sum(values) / 2:.3f} |")
    return "\n".join(lines)


def everything(data: Path, out: Path) -> Iterator[tuple[str, str, list[Job]]]:
    """(data set, table, its runs), those with most seeds first."""
    for dataset in DATASETS:
        for title, parts in studies(dataset, data, out).items():
            yield dataset, title, [job for part in parts for job in part.jobs()]


def run(data: Path, out: Path, workers: int) -> None:
    jobs = list({job.folder: job for _, _, found in everything(data, out) for job in found}.values())
    check_earlier(jobs, out)
    first = [v.label for v in parse_variants(f"{PAPER},{HARMOFL}")]
    jobs.sort(key=lambda job: (job.seed, job.folder.parent.parent.name != "main", job.variant.label not in first))
    with rounds_bar(sum(job.experiment.training.rounds for job in jobs)) as bar:
        for job, error in carry_out(jobs, workers, bar):
            print(f"{job.folder}: {error}")


def tables(data: Path, out: Path) -> None:
    for dataset in DATASETS:
        print(f"\n### {dataset}: validation by regime\n\n{regime_table(studies(dataset, data, out))}")
    for dataset, title, jobs in everything(data, out):
        if title in REGIMES:
            continue
        metric, outcomes = collect(jobs)
        if outcomes:
            left_out = title == "one site left out"
            print(f"\n### {dataset}: {title}\n")
            print(markdown(compare(metric, outcomes, "fedavg", left_out=left_out, equal="rounds")))
        if title == "every method":
            _, outcomes = collect(ablation(studies(dataset, data, out)[title]))
            print(f"\n### {dataset}: ablation\n")
            print(markdown(compare(metric, outcomes, "fedavg", left_out=False, equal="rounds")))


def main() -> None:
    args = arguments("accuracy", __doc__, ("run", "table", "pack"))
    if args.action == "run":
        run(args.data, args.out, args.workers)
    if args.action == "pack":
        jobs = {job.folder: job for _, _, found in everything(args.data, args.out) for job in found}
        pack("accuracy", list(jobs.values()), args.out)
    else:
        tables(args.data, args.out)


if __name__ == "__main__":
    main()

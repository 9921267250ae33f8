"""What HarmoFL gives on real images from several hospitals: the runs behind docs/evidence.md.

    python benchmarks/evidence.py run --data ../shared/data --out runs/evidence --workers 2
    python benchmarks/evidence.py pack --data ../shared/data --out runs/evidence   # then: benchmarks/figures.py

`run` goes on where it was stopped. It begins from what `pack` wrote into benchmarks/results, so that nobody needs to
train again what is there; `--afresh` trains all of it. Settings are those of configs/evidence; learning rates and
normalizations are compared on validation scores, nothing is chosen on test scores.
"""

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from packed import arguments, is_done, pack

from harmofl.comparison.plan import Job, check_earlier
from harmofl.comparison.progress import rounds_bar
from harmofl.comparison.study import Study
from harmofl.comparison.variants import parse_variants
from harmofl.comparison.workers import carry_out
from harmofl.experiment.config import load_experiment

CONFIGS = Path(__file__).parent.parent / "configs" / "evidence"
FEDERATIONS = ("nuclei_he6", "fundus_disc", "bloodcells", "mitosis_he4")
MIXED = "nuclei"
"""Fluorescence and bright field: images whose sites differ most."""
VOLUMES = "hippocampus"
"""Volumes of one hospital, which get five simulated scanners before the first run."""

OURS = "level and contrast=fedavg+profile:radial_bins=1+sam"
FEW = (
    "fedavg,fedbn,harmofl,harmofl-released,level alone=harmofl:band=0:rho=0,"
    f"level and contrast alone=fedavg+profile:radial_bins=1,{OURS},pooled"
)
MANY = f"{FEW},fedprox,fedsam,harmofl-profile,local"
TWO = f"fedavg,{OURS}"
BEST_PEERS = "z-score=fedavg+zscore,reinhard=fedavg+reinhard"
PEERS = f"{BEST_PEERS},histogram=fedavg+histogram,macenko=fedavg+macenko,stain jitter=fedavg+stain-jitter"
"""What is used in the place of amplitude normalization, first what is ahead in seed 0."""
FURTHER = (
    "fednova,fedadam,scaffold,moon,fedbn with level and contrast=fedbn+profile:radial_bins=1,fedbn with sam=fedbn+sam"
)
LEARNED = "learned gain=fedavg+learned_gain.LearnedGain"
SPANS = {
    "fedprox": ("mu=0.001", "mu=0.1"),
    "moon": ("mu=0.1", "mu=10"),
    "fedadam": ("server_lr=0.001", "server_lr=0.1"),
    "fedsam": ("rho=0.005", "rho=0.5"),
    "harmofl": ("band=0.1", "strength=0.5"),
    "harmofl-released": ("rho=0.005", "rho=0.5"),
    "harmofl-contrast": ("rho=0.005", "rho=0.5"),
}
"""Hyperparameters that are tried beside a method's default, as many of each method."""
TRIES = ",".join(f"{name} {one}".replace("=", " ") + f"={name}:{one}" for name, two in SPANS.items() for one in two)
SMALL = "int8 up=fedavg:training.updates=int8,int8 both ways=fedavg:training.updates=int8:training.downlink=int8"
"""Changes of weights in a quarter of the bytes."""
RATES: tuple[float, ...] = (0.25, 1, 4)
"""Learning rates that are tried, in those of the configurations."""


@dataclass(frozen=True)
class Part:
    """Some runs of one federation under one normalization.

    Args:
        federation: of `FEDERATIONS`, `MIXED` or `VOLUMES`.
        norm: the normalization regime.
        methods: as for `harmofl compare`.
        seeds: which.
        left_out: whether each site is left out in turn.
        rate: the learning rate, in that of the configuration.
        values: range of an image at the network's input; "-2..2" is about that of z-scores.
        kind: what the folder's name begins with; "tries" for hyperparameters other than a method's default.
    """

    federation: str
    norm: str
    methods: str
    seeds: tuple[int, ...] = (0,)
    left_out: bool = False
    rate: float = 1
    values: str = "0..1"
    kind: str = "main"

    @property
    def folder(self) -> str:
        """Where its runs are; those of one folder can stand in one table."""
        kind = "left-out" if self.left_out else self.kind
        changed = [f"lr-{self.rate:g}"] * (self.rate != 1) + ["standardized"] * (self.values != "0..1")
        return "-".join([f"{self.federation}/{kind}-{self.norm}", *changed])

    def jobs(self, data: Path, out: Path) -> list[Job]:
        """Its runs."""
        changes = {
            "data.folder": str(out / "scanners" if self.federation == VOLUMES else data / self.federation),
            "data.cache": str(out / "cache" / self.federation),
            "network.norm": self.norm,
            "network.values": self.values,
            "data.split_seed": 0,
        }
        base = load_experiment(CONFIGS / f"{self.federation}.toml", changes)
        rate = {"training.lr": base.training.lr * self.rate}
        base = load_experiment(CONFIGS / f"{self.federation}.toml", {**changes, **rate})
        seeds = max(self.seeds) + 1
        study = Study(base, parse_variants(self.methods), seeds, out / self.folder, leave_one_site_out=self.left_out)
        return [job for job in study.jobs() if job.seed in self.seeds]


def parts() -> Iterator[Part]:
    """What is run, the most telling first."""
    hospitals, *others = FEDERATIONS
    yield Part(hospitals, "batch", MANY)
    for rate in (4, 16):  # at which a network begins to learn there
        yield Part("mitosis_he4", "batch", TWO, rate=rate)
    for federation in others:
        yield Part(federation, "batch", FEW)
    yield Part(hospitals, "batch", TWO, left_out=True)
    yield Part(hospitals, "instance", "fedavg", left_out=True)
    yield Part(hospitals, "batch", MANY, (1, 2))
    for federation in FEDERATIONS:
        for norm in ("instance", "group"):
            yield Part(federation, norm, TWO)
    for federation in FEDERATIONS:
        yield Part(federation, "instance", TWO, (1, 2))
    for rate in (4, 16):
        for norm in ("instance", "group"):
            yield Part("mitosis_he4", norm, TWO, rate=rate)
    for other in others:
        yield Part(other, "batch", FEW, (1, 2))
    yield Part(hospitals, "batch", "harmofl,harmofl-released", left_out=True)
    yield Part(hospitals, "batch", TWO, (1, 2), left_out=True)
    yield Part(hospitals, "batch-stats", MANY)
    for federation in FEDERATIONS:
        for norm in ("batch", "instance"):
            for rate in RATES:
                yield Part(federation, norm, TWO, rate=rate)
    yield Part("mitosis_he4", "batch", OURS, (1, 2), rate=4)  # its best learning rate by validation
    yield Part(VOLUMES, "batch", f"fedavg,fedbn,harmofl,{OURS}", (0, 1, 2))
    yield Part(hospitals, "batch-stats", MANY, (1, 2))
    for federation in ("bloodcells", hospitals):
        yield Part(federation, "instance", SMALL, (0, 1, 2))
    for federation in FEDERATIONS:
        yield Part(federation, "batch", PEERS)
    for federation in FEDERATIONS:
        yield Part(federation, "batch", BEST_PEERS, (1, 2))
    for federation in others:
        yield Part(federation, "batch", TWO, left_out=True)
        yield Part(federation, "instance", "fedavg", left_out=True)
    for federation in FEDERATIONS:
        yield Part(federation, "batch", f"{FURTHER},{LEARNED}")
    for federation in (hospitals, "bloodcells"):
        yield Part(federation, "batch", TRIES, kind="tries")
    for federation in FEDERATIONS:
        yield Part(federation, "batch", TWO, values="-2..2")
    for other in others:
        yield Part(other, "batch", "fedprox,fedsam,local")
    for federation in FEDERATIONS:
        yield Part(federation, "batch", LEARNED, (1, 2))
    for federation in FEDERATIONS:
        yield Part(federation, "batch", BEST_PEERS, left_out=True)
    for federation in FEDERATIONS:
        yield Part(federation, "batch", LEARNED, left_out=True)
    for other in others:
        yield Part(other, "batch", TWO, (1, 2), left_out=True)
        yield Part(other, "instance", "fedavg", (1, 2), left_out=True)
    yield Part(MIXED, "batch", FEW)
    for norm in ("instance", "group"):
        yield Part(MIXED, norm, TWO)
    for norm in ("batch", "instance"):
        for rate in RATES:
            yield Part(MIXED, norm, TWO, rate=rate)
    yield Part(MIXED, "batch", TWO, left_out=True)
    yield Part(MIXED, "instance", "fedavg", left_out=True)


def all_jobs(data: Path, out: Path) -> list[Job]:
    """Every run once."""
    return list({job.folder: job for part in parts() for job in part.jobs(data, out)}.values())


def run(data: Path, out: Path, workers: int) -> None:
    jobs = [job for job in all_jobs(data, out) if not is_done(job.folder)]
    if not (out / "scanners" / "metadata.csv").exists() and any(
        job.folder.is_relative_to(out / VOLUMES) for job in jobs
    ):
        from scanners import write_federation

        write_federation(data / VOLUMES, out / "scanners")
    check_earlier(jobs, out)
    with rounds_bar(sum(job.experiment.training.rounds for job in jobs)) as bar:
        for job, error in carry_out(jobs, workers, bar):
            print(f"{job.folder}: {error}")


def main() -> None:
    args = arguments("evidence", __doc__, ("run", "pack"))
    if args.action == "run":
        run(args.data, args.out, args.workers)
    if args.action == "pack":
        pack("evidence", all_jobs(args.data, args.out), args.out)


if __name__ == "__main__":
    main()

"""How often 95 % intervals hold the truth, and how often equal methods are called different, on simulated scores.

    python benchmarks/coverage.py --worlds 1000

Every world draws patients and seeds anew, and asks the product's own functions for intervals. `drawn` is the percentile
bootstrap that draws images and seeds with replacement, as is often done. Takes half an hour on one core.
"""

import argparse
from collections.abc import Callable, Sequence
from dataclasses import replace

import numpy as np

from harmofl.comparison.statistics import FEWEST_SEEDS
from harmofl.evaluation.confidence_intervals import Cases, holm, interval, interval_estimate
from harmofl.evaluation.metrics import CaseScores, auc_cases, classification_cases

Rng = np.random.Generator
SEEDS = (1, 2, 3, 5, 10)


def drawn(sites: Sequence[Cases], rng: Rng) -> tuple[float, float]:
    """The percentile interval when seeds are drawn, and the images of every site, 300 times."""
    seeds, means = len(sites[0].scores), []
    for _ in range(300):
        rows = rng.integers(seeds, size=seeds)[:, None]
        columns = [rng.integers(len(site.groups), size=len(site.groups)) for site in sites]
        means.append(np.mean([site.scores[rows, index].mean() for site, index in zip(sites, columns, strict=True)]))
    low, high = np.quantile(means, (0.025, 0.975))
    return float(low), float(high)


def counted(rng: Rng, patients: int, images: int, unequal: bool) -> np.ndarray:
    """Images of each patient; where they are unequal, every fifth patient has about ten times as many."""
    if not unequal:
        return np.full(patients, images)
    return 1 + rng.poisson(images - 1, patients) * (1 + 9 * (rng.random(patients) < 0.2))


def differences(
    rng: Rng,
    seeds: int,
    sites: int = 6,
    patients: int = 20,
    images: int = 1,
    of_seed: float = 0.0,
    of_patient: float = 1.0,
    of_both: float = 0.5,
    of_image: float = 0.5,
    unequal: bool = False,
) -> list[Cases]:
    """Gains of a method that is as good as the baseline: 0 in truth."""
    common, found = rng.normal(0, of_seed, (seeds, 1)), []
    for _ in range(sites):
        owner = np.repeat(np.arange(patients), counted(rng, patients, images, unequal))
        gains = common + rng.normal(0, of_patient, patients)[owner]
        gains = gains + rng.normal(0, of_both, (seeds, patients))[:, owner]
        gains = gains + rng.normal(0, of_image, (seeds, len(owner)))
        found.append(Cases(gains, np.full(len(owner), ""), owner))
    return found


DIFFERENCES: dict[str, dict[str, float]] = {
    "seeds differ most": {"of_seed": 1, "of_patient": 0.1, "of_both": 0.1, "of_image": 0.1},
    "seeds and patients differ alike": {"patients": 12, "images": 4, "of_seed": 0.15},
    "patients differ most": {"of_seed": 0.02, "images": 10},
    "nothing but noise of each image": {"of_patient": 0, "of_both": 0, "images": 4},
    "two sites of 8 patients": {"sites": 2, "patients": 8, "images": 10, "of_seed": 0.2},
    "one site of 5 volumes": {"sites": 1, "patients": 5, "of_seed": 0.3},
    "patients of 1 to 100 images": {"patients": 15, "images": 8, "of_seed": 0.15, "unequal": True},
}


def right(rng: Rng, patients: int, images: int, level: float, alike: float, unequal: bool) -> tuple[CaseScores, float]:
    """Images classified rightly or not; a patient's share is Beta(level alike, (1 - level) alike)."""
    owner = np.repeat(np.arange(patients), counted(rng, patients, images, unequal))
    correct = rng.random(len(owner)) < rng.beta(level * alike, (1 - level) * alike, patients)[owner]
    names = [f"{k}" for k in range(len(owner))]
    return CaseScores(names, [""] * len(names), correct.astype(float).tolist(), owner.tolist()), level


def balanced(rng: Rng, patients: int, images: int) -> tuple[CaseScores, float]:
    """Two classes in every patient, found in 0.9 and 0.7 of the images."""
    owner = np.repeat(np.arange(patients), images)
    targets = (rng.random(len(owner)) < 0.3).astype(int)
    shift = rng.normal(0, 0.8, patients)[owner]
    chance = 1 / (1 + np.exp(-(np.array([2.45, 1.0])[targets] + shift)))
    answers = np.where(rng.random(len(owner)) < chance, targets, 1 - targets)
    names = [f"{k}" for k in range(len(owner))]
    cases = classification_cases("balanced_accuracy", np.eye(2)[answers], targets, names, [f"{k}" for k in owner])
    draws = rng.normal(0, 0.8, 200_000)
    return cases, float(np.mean([(1 / (1 + np.exp(-(m + draws)))).mean() for m in (2.45, 1.0)]))


def ranked(rng: Rng, patients: int, images: int) -> tuple[CaseScores, float]:
    """Half of the patients ill, scores N(1.5, 1) + N(0, .7) of the patient: the area is Phi(1.5 / sqrt(2 x 1.49))."""
    from scipy.special import ndtr

    owner = np.repeat(np.arange(patients), images)
    targets = owner % 2
    likely = 1.5 * targets + rng.normal(0, 0.7, patients)[owner] + rng.normal(0, 1, len(owner))
    probabilities = 1 / (1 + np.exp(-np.stack([-likely, likely], axis=1)))
    names = [f"{k}" for k in range(len(owner))]
    cases = auc_cases(probabilities, targets, names, [f"{k}" for k in owner])
    return cases, float(ndtr(1.5 / np.sqrt(2 * 1.49)))


def volumes(rng: Rng, patients: int) -> tuple[CaseScores, float]:
    """Dice of whole volumes, most near .9 and some far below: Beta(9, 1), of mean .9."""
    scores = rng.beta(9, 1, patients)
    return CaseScores([f"{k}" for k in range(patients)], [""] * patients, scores.tolist()), 0.9


SCORES: dict[str, Callable[[Rng], tuple[CaseScores, float]]] = {
    "accuracy .85, 8 patients x 40": lambda rng: right(rng, 8, 40, 0.85, 8, False),
    "accuracy .85, 20 x 40": lambda rng: right(rng, 20, 40, 0.85, 8, False),
    "accuracy .85, 20 x 200": lambda rng: right(rng, 20, 200, 0.85, 8, False),
    "accuracy .85, 20 of 1 to 400": lambda rng: right(rng, 20, 40, 0.85, 8, True),
    "accuracy .95, 20 x 40": lambda rng: right(rng, 20, 40, 0.95, 20, False),
    "accuracy .9, 40 x 1": lambda rng: right(rng, 40, 1, 0.9, 8, False),
    "balanced accuracy, 15 x 20": lambda rng: balanced(rng, 15, 20),
    "area under the curve, 20 x 10": lambda rng: ranked(rng, 20, 10),
    "area under the curve, 60 x 1": lambda rng: ranked(rng, 60, 1),
    "Dice .9, 6 volumes": lambda rng: volumes(rng, 6),
    "Dice .9, 20 volumes": lambda rng: volumes(rng, 20),
}


def of_scores(worlds: int, rng: Rng) -> None:
    print("| one model at one site | holds the truth | drawn |\n|---|---|---|")
    for name, world in SCORES.items():
        hits, plain = np.zeros(2), False
        for _ in range(worlds):
            cases, truth = world(rng)
            plain = set(cases.groups) == {""}
            site = Cases(np.array([cases.scores]), np.array(cases.groups), np.array(cases.patients))
            found = [interval(cases), drawn([site], rng) if plain else (0.0, 0.0)]
            hits += [low <= truth <= high for low, high in found]
        print(f"| {name} | {hits[0] / worlds:.3f} | {f'{hits[1] / worlds:.3f}' if plain else '-'} |", flush=True)


def of_differences(worlds: int, rng: Rng) -> None:
    columns = " | ".join(f"{seeds} seed{'s' * (seeds > 1)} (drawn)" for seeds in SEEDS)
    print(f"\n| difference of two methods | {columns} |\n|---|{'---|' * len(SEEDS)}")
    for name, world in DIFFERENCES.items():
        cells = []
        for seeds in SEEDS:
            hits = np.zeros(2)
            for _ in range(worlds):
                sites = differences(rng, seeds, **world)  # type: ignore[arg-type]
                hits += [low <= 0 <= high for low, high in (interval_estimate(sites).interval, drawn(sites, rng))]
            cells.append(f"{hits[0] / worlds:.3f} ({hits[1] / worlds:.3f})")
        print(f"| {name} | {' | '.join(cells)} |", flush=True)


def of_many(worlds: int, rng: Rng, methods: int = 9) -> None:
    """Ten equal methods: how often any of nine is called clear of the tenth."""
    print("\n| nine methods as good as the baseline | any called clear | without Holm | drawn |\n|---|---|---|---|")
    world = DIFFERENCES["seeds and patients differ alike"]
    for seeds in (FEWEST_SEEDS, 5):
        called = np.zeros(3)
        for _ in range(worlds):
            base, *others = (differences(rng, seeds, **world) for _ in range(methods + 1))  # type: ignore[arg-type]
            gains = [
                [replace(a, scores=a.scores - b.scores) for a, b in zip(other, base, strict=True)] for other in others
            ]
            p = [interval_estimate(sites).p for sites in gains]
            away = [low > 0 or high < 0 for low, high in (drawn(sites, rng) for sites in gains)]
            called += [min(holm(p)) < 0.05, min(p) < 0.05, any(away)]
        print(f"| {seeds} seeds | {' | '.join(f'{share:.3f}' for share in called / worlds)} |", flush=True)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--worlds", type=int, default=1000)
    worlds, rng = parser.parse_args().worlds, np.random.default_rng(0)
    of_scores(worlds, rng)
    of_differences(worlds, rng)
    of_many(max(worlds // 5, 1), rng)


if __name__ == "__main__":
    main()

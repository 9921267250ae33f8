"""Figures of the documentation, from the committed results.

    python benchmarks/figures.py           # brings every marked figure, table and picture up to date
    python benchmarks/figures.py --check   # says which are not; the tests do the same

In a page, `0.596<!-- nuclei_he6/main-batch; fedavg; average -->` is one figure, and what stands between
`<!-- table nuclei_he6/main-batch -->` and `<!-- end -->` a table. Results are those that `pack` wrote into
benchmarks/results.
"""

import argparse
import json
import math
import re
import tempfile
from collections.abc import Sequence
from dataclasses import replace
from functools import cache, partial
from pathlib import Path

import numpy as np
from evidence import FEDERATIONS, RATES, SPANS, VOLUMES
from packed import STORE, unpack

from harmofl.comparison.charts import overview_chart
from harmofl.comparison.outcomes import Outcome, collect
from harmofl.comparison.plan import Job
from harmofl.comparison.score_table import COSTS, Comparison, compare, header, rows, sites_of
from harmofl.comparison.variants import Variant
from harmofl.experiment.run_dir import RunDir
from harmofl.experiment.tables import Experiment
from harmofl.report import vega
from harmofl.utils.atomic_files import write_atomic

ROOT = Path(__file__).parent.parent
PAGES = ("README.md", "docs/evidence.md", "docs/which.md", "docs/versions.md", "docs/index.md")
"""Every figure of three decimals in these is marked."""

FIGURE = re.compile(r"(?P<text>[+-]?\d+\.\d+)<!-- (?P<part>[\w/.-]+); (?P<method>[^;]+); (?P<what>[^;]+?) -->")
TABLE = re.compile(r"(?P<head><!-- table (?P<part>[\w/.-]+) -->\n).*?(?P<end><!-- end -->)", re.DOTALL)
UNMARKED = re.compile(r"(?<![\w.])[+-]?0?\.\d{3}(?!\d)(?!<!--)")


@cache
def _store() -> tuple[tempfile.TemporaryDirectory[str], Path]:
    holder = tempfile.TemporaryDirectory()
    out = Path(holder.name)
    for study in ("accuracy", "evidence"):
        unpack(study, out / study)
    return holder, out


@cache
def comparison(part: str) -> Comparison:
    """A part of a study, such as nuclei_he6/main-batch.

    Two are put together from several: in `best/nuclei_he6` each method has its best normalization and learning rate,
    in `unseen/nuclei_he6` each site is left out in turn, with BatchNorm and with instance normalization.

    Raises:
        SystemExit: if there are no results of it.
    """
    if part.startswith("best/"):
        return _best(part.removeprefix("best/"))
    if part.startswith("unseen/"):
        return _unseen(part.removeprefix("unseen/"))
    _, out = _store()
    folder = next((out / study / part for study in ("evidence", "accuracy") if (out / study / part).is_dir()), None)
    if folder is None:
        raise SystemExit(f"figures: there are no results of {part} in benchmarks/results")
    metric, outcomes = collect(_jobs(folder))
    return compare(metric, outcomes, "fedavg", left_out="left-out" in part, equal="rounds")


def _jobs(folder: Path) -> list[Job]:
    """What ran there, FedAvg first."""
    found = []
    for run in sorted(folder.glob("*/seed-*"), key=lambda run: (run.parent.name != "fedavg", run)):
        seed, _, left_out = run.name.removeprefix("seed-").partition("-without-")
        variant = Variant(run.parent.name.replace("_", " "), RunDir(run).result()["method"])
        found.append(Job(variant, int(seed), left_out, run, Experiment.model_construct()))
    return found


def _best(federation: str) -> Comparison:
    """Of every method the normalization and learning rate with the best validation score of seed 0."""
    _, out = _store()
    tried: dict[str, list[Outcome]] = {}
    metric = ""
    for folder in sorted((out / "evidence" / federation).glob("main-*")):
        if "batch-stats" in folder.name or "standardized" in folder.name:  # outputs depend on the batch; other inputs
            continue
        metric, outcomes = collect(_jobs(folder))
        for outcome in outcomes:
            named = _renamed(outcome, folder.name.removeprefix("main-").replace("-lr-", ", lr x"))
            tried.setdefault(outcome.variant.label, []).append(named)
    best = [max(found, key=lambda o: float(o.val[o.seeds.index(0)])) for found in tried.values() if len(found) > 1]
    return compare(metric, best, best[0].variant.label, left_out=False, equal="rounds")


def _unseen(federation: str) -> Comparison:
    """Of every normalization the models that were trained without a site, at that site."""
    _, out = _store()
    found: list[Outcome] = []
    for norm in ("batch", "instance"):
        metric, outcomes = collect(_jobs(out / "evidence" / federation / f"left-out-{norm}"))
        found += [_renamed(outcome, norm) for outcome in outcomes]
    return compare(metric, found, "fedavg (batch)", left_out=True, equal="rounds")


def _renamed(outcome: Outcome, regime: str) -> Outcome:
    return replace(outcome, variant=replace(outcome.variant, label=f"{outcome.variant.label} ({regime})"))


NORMS = ("batch", "group", "instance")


def bold_best(scores: Sequence[float]) -> list[str]:
    """The scores as text, the best in bold, and all that are printed the same."""
    texts = [f"{score:.3f}" for score in scores]
    return [f"**{text}**" if float(text) == max(map(float, texts)) else text for text in texts]


def by_normalization() -> str:
    """Validation scores of seed 0 under each normalization, at the learning rate of the configurations."""
    _, out = _store()
    lines = ["| federation | method | " + " | ".join(NORMS) + " |", "|---" * (len(NORMS) + 2) + "|"]
    for federation in sorted(FEDERATIONS):
        found: dict[str, dict[str, float]] = {}
        for norm in NORMS:
            if (folder := out / "evidence" / federation / f"main-{norm}").is_dir():
                for outcome in collect(_jobs(folder))[1]:
                    if 0 in outcome.seeds:
                        score = float(outcome.val[outcome.seeds.index(0)])
                        found.setdefault(outcome.variant.label, {})[norm] = score
        for method, scores in found.items():
            if len(scores) == len(NORMS):
                texts = bold_best([scores[norm] for norm in NORMS])
                lines.append(f"| {federation} | {method} | " + " | ".join(texts) + " |")
    return "\n".join(lines) + "\n"


def by_method(seeds: Sequence[int] = (0, 1, 2)) -> str:
    """Return validation scores under BatchNorm of the methods that ran on every federation with these seeds."""
    _, out = _store()
    federations = sorted(FEDERATIONS)
    found: dict[str, dict[str, float]] = {}
    for federation in federations:
        for outcome in collect(_jobs(out / "evidence" / federation / "main-batch"))[1]:
            if set(seeds) <= set(outcome.seeds):
                scores = [float(outcome.val[outcome.seeds.index(seed)]) for seed in seeds]
                found.setdefault(outcome.variant.label, {})[federation] = float(np.mean(scores))
    everywhere = {
        method: [scores[f] for f in federations] for method, scores in found.items() if len(scores) == len(federations)
    }
    ordered = sorted(everywhere.items(), key=lambda item: -float(np.mean(item[1])))
    columns = [bold_best(list(column)) for column in zip(*(scores for _, scores in ordered), strict=True)]
    lines = [f"| method | {' | '.join(federations)} | mean |", "|---" * (len(federations) + 2) + "|"]
    for (method, scores), texts in zip(ordered, zip(*columns, strict=True), strict=True):
        lines.append(f"| {method} | {' | '.join(texts)} | {np.mean(scores):.3f} |")
    return "\n".join(lines) + "\n"


SHARES = (0.25, 0.5, 0.75, 1.0)


def by_rounds() -> str:
    """Return the best validation score so far after each share of the rounds, mean over sites and seeds."""
    _, out = _store()
    lines = ["| federation | method | rounds | 25 % | 50 % | 75 % | 100 % |", "|---" * 7 + "|"]
    for federation in sorted((*FEDERATIONS, VOLUMES)):
        found = {o.variant.label: o for o in collect(_jobs(out / "evidence" / federation / "main-batch"))[1]}
        for method in ("fedavg", "level and contrast"):
            so_far = np.fmax.accumulate(np.mean(list(found[method].curves.values()), axis=0), axis=1)
            rounds = so_far.shape[1]
            texts = [f"{so_far[:, round(share * rounds) - 1].mean():.3f}" for share in SHARES]
            lines.append(f"| {federation} | {method} | {rounds} | {' | '.join(texts)} |")
    return "\n".join(lines) + "\n"


def by_learning_rate() -> str:
    """Return validation scores of seed 0 at several learning rates, in that of the configurations."""
    _, out = _store()
    lines = ["| federation | normalization | method | " + " | ".join(f"x{rate:g}" for rate in RATES) + " |"]
    lines.append("|---" * (len(RATES) + 3) + "|")
    for federation in sorted(FEDERATIONS):
        for norm in ("batch", "instance"):
            found: dict[str, list[float]] = {}
            for rate in RATES:
                name = f"main-{norm}" + f"-lr-{rate:g}" * (rate != 1)
                for outcome in collect(_jobs(out / "evidence" / federation / name))[1]:
                    found.setdefault(outcome.variant.label, []).append(float(outcome.val[outcome.seeds.index(0)]))
            for method, scores in found.items():
                if len(scores) == len(RATES):
                    lines.append(f"| {federation} | {norm} | {method} | {' | '.join(bold_best(scores))} |")
    return "\n".join(lines) + "\n"


def _first_seed(folder: Path) -> dict[str, tuple[float, float]]:
    """Return validation and test score of seed 0 by method, mean over sites."""
    found = {}
    for outcome in collect(_jobs(folder))[1]:
        if 0 in outcome.seeds:
            place = outcome.seeds.index(0)
            found[outcome.variant.label] = float(outcome.val[place]), float(outcome.average[place])
    return found


SPACED = str.maketrans("=_", "  ")
"""As in the labels of runs, which are made from the names of their folders."""


def by_hyperparameter() -> str:
    """Return validation scores of seed 0 with the default and others, and the test score with the best and FedAvg's."""
    _, out = _store()
    lines = ["| federation | method | default | | | test, default | test, best | test, fedavg |", "|---" * 8 + "|"]
    for federation in FEDERATIONS:
        if not (folder := out / "evidence" / federation / "tries-batch").is_dir():
            continue
        usual, tried = _first_seed(folder.with_name("main-batch")), _first_seed(folder)
        for method, changes in SPANS.items():
            name = {"harmofl-contrast": "level and contrast"}.get(method, method)
            if name not in usual:  # its default did not run there
                continue
            found = [usual[name], *(tried[f"{method} {change}".translate(SPACED)] for change in changes)]
            texts = bold_best([val for val, _ in found])
            cells = [texts[0], *(f"{change}: {text}" for change, text in zip(changes, texts[1:], strict=True))]
            tests = (found[0][1], max(found)[1], usual["fedavg"][1])
            lines.append(f"| {federation} | {method} | {' | '.join([*cells, *(f'{test:.3f}' for test in tests)])} |")
    return "\n".join(lines) + "\n"


def by_range() -> str:
    """Return validation and test scores of seed 0 with inputs in [0, 1] and in about [-2, 2]."""
    _, out = _store()
    lines = ["| federation | method | 0..1 | -2..2 | test, 0..1 | test, -2..2 |", "|---" * 6 + "|"]
    for federation in sorted(FEDERATIONS):
        folder = out / "evidence" / federation / "main-batch"
        usual, wide = _first_seed(folder), _first_seed(folder.with_name("main-batch-standardized"))
        for method, (val, test) in wide.items():
            cells = [*bold_best([usual[method][0], val]), *bold_best([usual[method][1], test])]
            lines.append(f"| {federation} | {method} | {' | '.join(cells)} |")
    return "\n".join(lines) + "\n"


def at_new_sites() -> str:
    """Return test scores of seed 0 at sites that were left out, mean over the sites, of what ran everywhere."""
    federations = sorted(FEDERATIONS)
    found: dict[str, dict[str, tuple[float, float]]] = {}
    for federation in federations:
        part = comparison(f"unseen/{federation}")
        for outcome in part.outcomes:
            if len(outcome.sites) == len(sites_of(part)) and 0 in outcome.seeds:
                place = outcome.seeds.index(0)
                scores = float(outcome.average[place]), float(outcome.worst[place])
                found.setdefault(outcome.variant.label, {})[federation] = scores
    everywhere = {m: [found[m][f] for f in federations] for m in found if len(found[m]) == len(federations)}
    summed = {m: [*(a for a, _ in v), *np.mean(v, axis=0).tolist()] for m, v in everywhere.items()}
    ordered = sorted(summed, key=lambda method: -summed[method][-2])
    columns = [bold_best(list(column)) for column in zip(*(summed[method] for method in ordered), strict=True)]
    lines = [f"| method | {' | '.join(federations)} | mean | mean of the worst sites |"]
    lines.append("|---" * (len(federations) + 3) + "|")
    lines += [f"| {m} | {' | '.join(texts)} |" for m, texts in zip(ordered, zip(*columns, strict=True), strict=True)]
    return "\n".join(lines) + "\n"


def of_plain_volumes() -> str:
    """Return what `plain_volumes.py` found: test Dice of each seed by site, and the mean of those that trained."""
    found: list[dict[str, float]] = json.loads((STORE / "plain_volumes.json").read_text(encoding="utf-8"))
    *trained, unseen = found[0]
    lines = [f"| seed | {' | '.join(trained)} | average | unseen ({unseen}) |", "|---" * (len(trained) + 3) + "|"]
    for seed, scores in enumerate(found):
        values = [scores[site] for site in trained]
        texts = [f"{value:.3f}" for value in (*values, float(np.mean(values)), scores[unseen])]
        lines.append(f"| {seed} | {' | '.join(texts)} |")
    return "\n".join(lines) + "\n"


OWN_TABLES = {
    "new-sites": at_new_sites,
    "learning-rates": by_learning_rate,
    "hyperparameters": by_hyperparameter,
    "normalizations": by_normalization,
    "operators": by_method,
    "peers": partial(by_method, (0,)),
    "ranges": by_range,
    "rounds": by_rounds,
    "yardstick": of_plain_volumes,
}


def table(part: str) -> str:
    """The columns of a comparison that a reader needs, as Markdown."""
    if part in OWN_TABLES:
        return OWN_TABLES[part]()
    found = comparison(part)
    names = header(found)
    kept = [k for k, name in enumerate(names) if name not in (*COSTS, "std")]
    lines = ["| " + " | ".join([names[k] for k in kept] + ["seeds"]) + " |", "|---" * (len(kept) + 1) + "|"]
    for row, outcome in zip(rows(found), found.outcomes, strict=True):
        texts = [f"**{row[k].text}**" if row[k].best else row[k].text for k in kept]
        lines.append("| " + " | ".join([*texts, str(len(outcome.seeds))]) + " |")
    return "\n".join(lines) + "\n"


def figure(part: str, method: str, what: str) -> str:
    """One number, as text.

    Args:
        part: of a study, see `comparison`.
        method: its label, or the beginning of it before a bracket.
        what: average, worst, validation, a site, or the difference to the baseline: gain, and low and high of its
            interval.

    Raises:
        SystemExit: if there is no such number.
    """
    found = comparison(part)
    labels = [outcome.variant.label for outcome in found.outcomes]
    place = next((k for k, label in enumerate(labels) if method in (label, label.split(" (")[0])), None)
    if place is None:
        raise SystemExit(f"figures: {part} has no results of {method}")
    outcome, difference = found.outcomes[place], found.differences[place]
    if what in ("gain", "low", "high"):
        value = getattr(difference, "mean" if what == "gain" else what, math.nan)
        return f"{value:+.3f}"
    scores = {"average": outcome.average, "worst": outcome.worst, "validation": outcome.val}
    values = scores[what] if what in scores else outcome.test[:, outcome.sites.index(what)]
    return f"{float(np.mean(values)):.3f}"


def filled(text: str) -> str:
    """A page with its marked figures and tables as the results have them."""
    text = TABLE.sub(lambda m: f"{m['head']}{table(m['part'])}{m['end']}", text)
    return FIGURE.sub(lambda m: m[0].replace(m["text"], figure(m["part"], m["method"], m["what"]), 1), text)


def unmarked(text: str) -> list[str]:
    """Figures of three decimals that are in no table and have no mark."""
    prose = "\n".join(line for line in TABLE.sub("", text).splitlines() if not line.startswith("    "))
    return UNMARKED.findall(prose)


def pictures(pages: Sequence[str]) -> None:
    """The picture beside each table: docs/evidence/FEDERATION-KIND.png."""
    for page in pages:
        for part in {m["part"] for m in TABLE.finditer((ROOT / page).read_text(encoding="utf-8"))}:
            if part not in OWN_TABLES:
                path = ROOT / "docs" / "evidence" / f"{part.replace('/', '-')}.png"
                path.parent.mkdir(exist_ok=True)
                write_atomic(path, vega.picture(overview_chart(comparison(part)), "png"))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--check", action="store_true", help="change nothing")
    args = parser.parse_args()
    wrong = []
    for page in PAGES:
        path = ROOT / page
        before = path.read_text(encoding="utf-8")
        after = filled(before)
        wrong += [f"{page}: {found} has no mark" for found in unmarked(before)]
        if after != before:
            wrong.append(f"{page}: was not up to date")
            if not args.check:
                path.write_text(after, encoding="utf-8")
    if not args.check:
        pictures(PAGES)
    print("\n".join(wrong) or "every figure is that of the results")
    if args.check and wrong:
        raise SystemExit(1)


if __name__ == "__main__":
    main()

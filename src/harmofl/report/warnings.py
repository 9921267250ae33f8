"""Warnings of a report on the reliability of its numbers."""

from collections import Counter

from harmofl.evaluation.metrics import CaseScores
from harmofl.experiment.finished_run import Run
from harmofl.report.scores import DASH, between, interval_at

FEW_IMAGES = 30
FEW_PATIENTS = 10


def warnings(run: Run) -> list[str]:
    """Return the warnings of a run, one line each."""
    found = [*_uncertain(run), _left_out(run), _still_rising(run)]
    return [line for line in found if line] + (run.result.remarks if run.result else [])


def _uncertain(run: Run) -> list[str]:
    """Return a warning for each site whose score is based on few patients or images."""
    found = []
    for site, cases in run.cases.items():
        count = len(set(cases.patients))
        few = f"{count} patient{'s' * (count != 1)}" if count < FEW_PATIENTS else _few_of_a_class(run, cases)
        if few:
            interval = between(*interval_at(run, site))
            known = f" (95 % interval {interval})" if interval != DASH else ""
            found.append(f"{site} has {few} for testing: its score is uncertain{known}")
    return found


def _few_of_a_class(run: Run, cases: CaseScores) -> str:
    """Describe classes with few images, by groups, which are classes if the score is balanced accuracy."""
    if run.result is None or run.result.task != "classification":
        return ""
    counts, names = Counter(cases.groups), run.result.classes
    if set(counts) == {""}:
        return f"{counts['']} images" if counts[""] < FEW_IMAGES else ""
    few = [(n, int(g)) for g, n in counts.items() if n < FEW_IMAGES]
    return ", ".join(f"{n} {names[g] if g < len(names) else f'of class {g}'}" for n, g in sorted(few))


def _left_out(run: Run) -> str:
    """Return a warning on the sites that failed and the number of rounds; "" if none."""
    counts = Counter(site for line in run.rounds for site in line.left_out)
    if not counts:
        return ""
    told = ", ".join(f"{site} in {n} round{'s' * (n != 1)}" for site, n in counts.most_common())
    first = next(line for line in run.rounds if line.left_out)
    site, reason = next(iter(first.left_out.items()))
    return f"left out of rounds because of errors: {told}; the first is {site} in round {first.round}: {reason}"


def _still_rising(run: Run) -> str:
    """Return a warning if more rounds would probably have given a better model, else ""."""
    result = run.result
    if result is None or result.rounds < 5 or result.chosen_round < result.rounds or not run.rounds[-1].val:
        return ""
    return f"the last round, {result.rounds}, was the best: more rounds may give a better model"

"""Headline of a report: the main result in a few sentences."""

import math

from harmofl.experiment.finished_run import Result, Run
from harmofl.report.scores import Group, mean_score, metric_words, number, site_values


def run_headline(group: Group) -> str:
    """Return the headline: the best federated run, its lead, worst site and chosen round; and the references."""
    scored = [(mean_score(_test(group, result)), run, result) for run, result in _done(group)]
    known = sorted((entry for entry in scored if math.isfinite(entry[0])), key=lambda entry: -entry[0])
    ranked = [entry for entry in known if not entry[1].reference] or known
    if not ranked:
        return _nothing_yet(group)
    best, run, result = ranked[0]
    rival = (ranked[1][0], ranked[1][1].label) if len(ranked) > 1 else None
    told = f"{_lead(group, run.label, best, rival)}{_worst(group, result)}, and {_chosen(result)}.{_elsewhere(group)}"
    aside = [
        f" {other.label} reaches {number(value)}, {value - best:+.3f}." for value, other, _ in known if other.reference
    ]
    return told + "".join(aside if ranked != known else [])


def _done(group: Group) -> list[tuple[Run, Result]]:
    return [(run, run.result) for run in group.runs if run.result]


def _test(group: Group, result: Result) -> list[float]:
    return site_values(result.test, group.sites, group.metric)


def _nothing_yet(group: Group) -> str:
    if group.finished:
        return f"No finished run has a test {metric_words(group.metric)} at every site."
    states = ", ".join(f"{run.label} has done {run.progress}" for run in group.runs)
    return f"Nothing to compare yet: {states}."


def _lead(group: Group, label: str, best: float, rival: tuple[float, str] | None) -> str:
    score = f"mean test {metric_words(group.metric)}"
    where = f"over {len(group.sites)} site{'' if len(group.sites) == 1 else 's'}"
    if rival is None:
        return f"{label} reaches a {score} of {number(best)} {where}"
    value, name = rival
    if number(value) == number(best):
        return f"{label} and {name} share the best {score}, {number(best)} {where}; for {label}"
    return f"{label} has the best {score}, {number(best)} {where}, {number(best - value)} above {name}"


def _worst(group: Group, result: Result) -> str:
    if len(group.sites) < 2:
        return ""
    values = _test(group, result)
    lowest = min(values)
    return f"; its worst site is {group.sites[values.index(lowest)]} with {number(lowest)}"


def _elsewhere(group: Group) -> str:
    """Return a sentence on the best run at the unseen sites; "" if there is none."""
    scored = [(mean_score(site_values(result.unseen, group.unseen, group.metric)), run) for run, result in _done(group)]
    ranked = sorted(
        ((value, run) for value, run in scored if math.isfinite(value) and not run.reference), key=lambda e: -e[0]
    )
    if not ranked:
        return ""
    (best, run), *others = ranked
    where = f" At {', '.join(group.unseen)}, which never trained,"
    score = number(best) if len(group.unseen) == 1 else f"{number(best)} in the mean"
    if not others:
        return f"{where} {run.label} reaches {score}."
    value, rival = others[0]
    if number(value) == number(best):
        return f"{where} {run.label} and {rival.label} share the best, {score}."
    return f"{where} {run.label} is best with {score}, {number(best - value)} above {rival.label}."


def _chosen(result: Result) -> str:
    return f"its model was chosen by validation at round {result.chosen_round} of {result.rounds}"

"""Headline of a report: the main result in a few sentences."""

import math
from collections.abc import Sequence

from harmofl.experiment.finished_run import Run
from harmofl.experiment.run_files import Result
from harmofl.report.scores import Group, mean_score, metric_words, number, site_values

Scored = tuple[float, Run, Result]


def run_headline(group: Group) -> str:
    """Return the headline: the best federated run, its lead, worst site and chosen round; and the references."""
    known = _ranked(group, "test", group.sites)
    ranked = [entry for entry in known if not entry[1].reference] or known
    if not ranked:
        return _nothing_yet(group)
    best, run, result = ranked[0]
    level = len(ranked) > 1 and number(ranked[1][0]) == number(best)
    whose = f"{run.label}'s" if level else "its"
    chosen = f"{whose} model was chosen by validation at round {result.chosen_round} of {result.rounds}"
    aside = [
        f" {other.label} reaches {number(value)}, {value - best:+.3f}." for value, other, _ in known if other.reference
    ]
    told = f"{_lead(group, ranked)}{_worst(group, result, whose)}, and {chosen}.{_elsewhere(group)}"
    return told + "".join(aside if ranked != known else [])


def _ranked(group: Group, part: str, sites: Sequence[str]) -> list[Scored]:
    """Return mean score, run and result of every run that has a score at each of the sites, best first."""
    scored = [
        (mean_score(site_values(getattr(result, part), sites, group.metric)), run, result)
        for run, result in group.results
    ]
    return sorted((entry for entry in scored if math.isfinite(entry[0])), key=lambda entry: -entry[0])


def _nothing_yet(group: Group) -> str:
    if group.finished:
        return f"No finished run has a test {metric_words(group.metric)} at every site."
    states = ", ".join(f"{run.label} has done {run.progress}" for run in group.runs)
    return f"Nothing to compare yet: {states}."


def _lead(group: Group, ranked: Sequence[Scored]) -> str:
    (best, run, _), *others = ranked
    score = f"mean test {metric_words(group.metric)}"
    where = f"over {len(group.sites)} site{'' if len(group.sites) == 1 else 's'}"
    if not others:
        return f"{run.label} reaches a {score} of {number(best)} {where}"
    value, rival, _ = others[0]
    if number(value) == number(best):
        return f"{_sharing(ranked)} share the best {score}, {number(best)} {where}"
    return f"{run.label} has the best {score}, {number(best)} {where}, {number(best - value)} above {rival.label}"


def _sharing(ranked: Sequence[Scored]) -> str:
    """Return the names of the runs that share the best score, or their number if they are more than three."""
    names = [run.label for value, run, _ in ranked if number(value) == number(ranked[0][0])]
    return f"{', '.join(names[:-1])} and {names[-1]}" if len(names) <= 3 else f"{len(names)} of {len(ranked)} runs"


def _worst(group: Group, result: Result, whose: str) -> str:
    if len(group.sites) < 2:
        return ""
    values = site_values(result.test, group.sites, group.metric)
    lowest = min(values)
    return f"; {whose} worst site is {group.sites[values.index(lowest)]} with {number(lowest)}"


def _elsewhere(group: Group) -> str:
    """Return a sentence on the best run at the unseen sites; "" if there is none."""
    ranked = [entry for entry in _ranked(group, "unseen", group.unseen) if not entry[1].reference]
    if not ranked:
        return ""
    (best, run, _), *others = ranked
    where = f" At {', '.join(group.unseen)}, which never trained,"
    score = number(best) if len(group.unseen) == 1 else f"{number(best)} on average"
    if not others:
        return f"{where} {run.label} reaches {score}."
    value, rival, _ = others[0]
    if number(value) == number(best):
        return f"{where} {_sharing(ranked)} share the best, {score}."
    return f"{where} {run.label} is best with {score}, {number(best - value)} above {rival.label}."

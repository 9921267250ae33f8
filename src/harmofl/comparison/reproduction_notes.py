"""Notes on how a reproduction differs from the paper's experiment, in plain words."""

from collections.abc import Iterator, Sequence
from typing import Any

from harmofl.comparison.reproduction import Reproduction
from harmofl.comparison.reproduction_record import DownloadFacts
from harmofl.experiment.config import load_experiment
from harmofl.experiment.paper_settings import setting_remarks
from harmofl.experiment.tables import Experiment
from harmofl.methods.composition import describe
from harmofl.report.scores import metric_name

_SITES = {
    "nuclei": "The paper does not say which hospitals its sites A to D are; here MoNuSAC 2020 is divided by the "
    "institution that provided the tissue.",
}
_SPLIT = {
    "given": "Patients, not images, are divided into training, validation and test; the paper's division is not known.",
    "images": "Single images are divided, as by the released code, so a patient is on several sides and scores are too "
    "high; its index files are not available, so the division is drawn.",
}


def caution(options: Reproduction, experiment: Experiment, facts: DownloadFacts) -> str:
    """Return a sentence that this is not the paper's experiment, or "" if rounds, settings and data are its own."""
    shorter = experiment.training.rounds != load_experiment(options.config, {}).training.rounds
    named = (("rounds", shorter), ("settings", bool(options.changes)), ("data", not facts.whole))
    other = [name for name, differs in named if differs]
    return f"A try, not the paper's experiment: its {', '.join(other)} differ, see the notes. " if other else ""


def budget_notes(options: Reproduction, experiment: Experiment, facts: DownloadFacts) -> Iterator[str]:
    """Yield notes on the data, the budget and the settings that differ from the paper's experiment."""
    rounds = load_experiment(options.config, {}).training.rounds
    if experiment.training.rounds != rounds:
        yield (
            f"The budget is not the paper's: training.rounds is {experiment.training.rounds} instead of {rounds}, so "
            "the scores cannot be compared with the paper's."
        )
    if options.changes:
        changes = ", ".join(f"{key}={value}" for key, value in options.changes.items())
        yield f"Settings are not those of the experiment: {changes}."
    if not facts.whole:
        missing = "; ".join(facts.problems[:3]) + f" (and {len(facts.problems) + facts.more - 3} more)" * (
            len(facts.problems) + facts.more > 3
        )
        yield f"The data is not the complete download: {missing}."
    yield f"Settings: {options.config.name}, {_version(options.version)}. {_SPLIT[experiment.data.split]}"
    if options.task in _SITES:
        yield _SITES[options.task]
    yield f"Hyperparameters: {_hyperparameters(options)}. The paper's are known for HarmoFL alone."


def _version(version: str) -> str:
    return "the experiment as published" if version == "paper" else "the experiment as the released code runs"


def _hyperparameters(options: Reproduction) -> str:
    """Return the numeric hyperparameters of each method, in words."""
    said = []
    for variant in options.variants():
        known = describe(variant.method).hyperparameters
        values = {key: variant.changes.get(key, field.default) for key, field in known.items()}
        numbers = [f"{key}={value}" for key, value in values.items() if isinstance(value, float)]
        said.append(f"{variant.label} {', '.join(numbers) or 'has none'}")
    return "; ".join(said)


def notes_on_metric(metrics: Sequence[str], judged: str) -> Iterator[str]:
    """Yield notes on the metrics; `judged` is the one that chose the round."""
    chosen = f"Each model is that of the round with the best mean validation {metric_name(judged)}."
    if len(metrics) == 1:
        yield f"Metric: {metric_name(metrics[0])}. {chosen}"
        return
    yield (
        f"Metric: {metric_name(metrics[0])}, of the foreground of each case, is the main figure. "
        f"{metric_name(metrics[1])} is the metric of the released code, the mean of background and foreground over "
        f"single slices, which is usually higher; it is the one to compare with the paper's table. {chosen}"
    )


def setting_rows(options: Reproduction, experiment: Experiment) -> Iterator[tuple[str, str, str]]:
    """Yield key, value here and remark of each setting whose file has a remark, and of each changed setting."""
    tables: Any = experiment.model_dump(mode="json")
    changed = {"training.rounds": options.rounds} if options.rounds is not None else {}
    remarks = {one.key: one for one in setting_remarks(options.config)}
    for key in dict.fromkeys((*remarks, *changed, *options.changes)):
        table, _, name = key.partition(".")
        if table == "method" or not name or key == "data.cache":
            continue
        here = options.changes.get(key, changed.get(key, tables[table].get(name) if table in tables else None))
        remark = remarks.get(key)
        text = remark.text if remark else "another value than the experiment's file"
        text = "recalled, not checked against the paper" if remark and remark.recalled else text
        before = remark and (key in options.changes or key in changed) and f"; {remark.value} in the file"
        yield key, str(here), f"{text}{before or ''}"

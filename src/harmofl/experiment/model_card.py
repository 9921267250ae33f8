"""The description of a model for its use, and the metric by which it is chosen."""

from collections.abc import Mapping, Sequence
from typing import Any

from harmofl.errors import ConfigError
from harmofl.evaluation.metrics import CASE_METRICS, MAIN_METRIC
from harmofl.experiment.tables import Experiment
from harmofl.types import Task


def model_card(experiment: Experiment, about: Mapping[str, Any], sites: Sequence[str], **more: Any) -> dict[str, Any]:
    """Return the description of the model for its use, the content of model.json.

    Args:
        experiment: the resolved experiment.
        about: the images' task, classes, channels, size, images and bits.
        sites: the sites that train.
        more: further entries.

    For whole volumes `size` is that of a patch, and the entry `volumes` is that of `VolumeSettings.on_card`.
    """
    return {
        "task": about["task"],
        "classes": list(about["classes"]),
        "channels": int(about["channels"]),
        "size": list(about["size"]),
        "images": about["images"],
        "bits": about["bits"],
        "metric": main_metric(experiment, about["task"]),
        "network": experiment.network.model_dump(),
        "method": dict(experiment.method_table),
        "sites": list(sites),
        "unseen": [],
        "split": experiment.data.split,
        "split_seed": experiment.split_seed,
        **({"volumes": volumes.on_card()} if (volumes := experiment.data.volumes) else {}),
        **more,
    }


def main_metric(experiment: Experiment, task: Task) -> str:
    """Return the metric by which the round is chosen and methods are compared."""
    return experiment.evaluation.metric or MAIN_METRIC[task]


def check_metric(experiment: Experiment, task: Task) -> None:
    """Raise ConfigError unless the task has the metric."""
    metric = experiment.evaluation.metric
    if metric not in CASE_METRICS[task]:
        known = ", ".join(CASE_METRICS[task])
        raise ConfigError(f"evaluation.metric must be one of {known} for {task}, got {metric!r}")

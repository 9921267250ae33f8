"""Checks of settings that have no meaning for whole volumes."""

from harmofl.errors import ConfigError
from harmofl.experiment.tables import Experiment


def check_volumes(experiment: Experiment) -> None:
    """Raise ConfigError for a setting or method of slices, if the experiment has whole volumes."""
    if experiment.data.volumes is None:
        return
    wrong = (
        ("training.augment", experiment.training.augment, "flips-released", '"flips" or "none"'),
        ("evaluation.validation", experiment.evaluation.validation, "batches", '"images"'),
        ("evaluation.metric", experiment.evaluation.metric, "slice_dice_released", '"dice" or "iou"'),
    )
    for key, value, refused, allowed in wrong:
        if value == refused:
            raise ConfigError(f'{key} must be {allowed} with data.mode = "volumes", got {value!r}; change it')
    if not experiment.method.takes_volumes:
        name = experiment.method_name
        raise ConfigError(f'method.name: {name} is for images, got data.mode = "volumes"; choose another method')

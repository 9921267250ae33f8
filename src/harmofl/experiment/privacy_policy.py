"""The [privacy] table of an experiment: checks against method, network and sites, and the protection of updates."""

from collections.abc import Sequence
from functools import partial

from torch import nn

from harmofl.data.site import Site
from harmofl.errors import ConfigError
from harmofl.experiment.tables import Experiment, PrivacyTable
from harmofl.federated.client import Protect
from harmofl.federated.model import role_of
from harmofl.methods import FedAvg
from harmofl.methods.parts.averages import Mean
from harmofl.models.bn_calibration import mixes
from harmofl.privacy.accounting import epsilon
from harmofl.privacy.noise import Noise, noise_share, simulated
from harmofl.types import Role


def noise_of(table: PrivacyTable) -> Noise | None:
    """Return the clipping and noise applied to an update before it leaves its site; None without privacy.clip."""
    if table.clip is None:
        return None
    multiplier = noise_share(table.noise, table.noise_of, table.sites)
    return Noise(clip=table.clip, multiplier=multiplier, amplitude_clip=table.amplitude_clip or 0.0)


def simulated_protection(experiment: Experiment) -> Protect | None:
    """Return the function that protects an update on one machine, with noise from the seed; None if updates stay."""
    noise = noise_of(experiment.privacy)
    return None if noise is None else partial(simulated, noise, experiment.run.seed)


def check_method(experiment: Experiment, method: FedAvg) -> None:
    """Raise ConfigError unless the method supports the settings of the [privacy] table."""
    table, name = experiment.privacy, experiment.method_name
    asked = "privacy.masks" if table.masks else "privacy.clip"
    if table.masks or table.clip is not None:
        if experiment.arrangement != "federated":
            raise ConfigError(f"{asked}: {name} sends no updates; leave it out")
        if method.uplink_extras:
            extras = ", ".join(extra.name for extra in method.uplink_extras)
            raise ConfigError(f"{asked}: {name} sends {extras} beside the weights; choose another method")
        if method.average.weighting != "uniform":
            raise ConfigError(f'{asked}: method.weighting must be "uniform", got {method.average.weighting!r}')
    if table.masks and not isinstance(method.average, Mean):
        raise ConfigError(
            f"privacy.masks: the average must be the mean, as the server sees only sums, got {method.average}; "
            "leave that part out"
        )
    if table.masks and experiment.training.updates != "float32":
        raise ConfigError("privacy.masks: training.updates must be float32, as masked numbers are integers; change it")
    if table.clip is not None and not method.normalize.takes_noise:
        raise ConfigError(
            f"privacy.clip: {method.normalize} must get no noise, which would make its statistic invalid; "
            "choose +amplitude, +profile or +zscore, or leave privacy.clip out"
        )
    if table.clip is not None and method.normalize.learns and table.amplitude_clip is None:
        raise ConfigError(
            "privacy.clip: with amplitude normalization privacy.amplitude_clip must be set too; no amplitude's norm is "
            "more than height x width x sqrt(channels) of an image"
        )
    if table.min_images > 1 and any(extra.of_images for extra in method.uplink_extras):
        raise ConfigError(f"privacy.min_images: {name} sends amplitudes of single images; set it to 0")


def check_model_privacy(table: PrivacyTable, method: FedAvg, model: nn.Module) -> None:
    """Raise ConfigError if clipping is on and the network would send image statistics beside its params."""
    if table.clip is None:
        return
    for name, buffer in model.named_buffers():
        if buffer.is_floating_point() and role_of(method, model, name) is Role.SHARED:
            raise ConfigError(
                f"privacy.clip: {name} would be sent with noise, which may make it invalid; set network.norm to "
                "batch-stats, group or instance, or method.name to fedbn or silobn"
            )


def check_images(table: PrivacyTable, method: FedAvg, sites: Sequence[Site]) -> None:
    """Raise ConfigError if a site would send an amplitude of fewer than privacy.min_images images."""
    for site in sites if method.normalize.learns else ():
        if len(site.train) < table.min_images:
            raise ConfigError(
                f"{site.name}: an amplitude that is sent must be of at least {table.min_images} images "
                f"(privacy.min_images), got {len(site.train)}; leave the site out, or add +identity "
                "to the method's name"
            )


def tells_statistics(table: PrivacyTable, model: nn.Module) -> bool:
    """Return True if the model's layers need a site's means and variances, and privacy allows to save them."""
    return mixes(model) and not table.noise and not table.masks


def statement(experiment: Experiment, method: FedAvg, deployed: bool) -> list[str]:
    """Return lines that say what is protected and what is not, in plain words."""
    table, rounds, said = experiment.privacy, experiment.training.rounds, list[str]()
    if table.noise:
        spent = epsilon(table.noise, rounds + bool(method.normalize.learns), table.delta)
        where = "each update" if table.noise_of == "update" else f"each sum over at least {table.sites} sites"
        said.append(
            f"privacy: {where} has noise; after {rounds} rounds, a site's participation has epsilon at most "
            f"{spent:.3g} and delta {table.delta:g}; losses, scores and numbers of images are sent without noise"
        )
    elif table.clip is not None:
        said.append("privacy: updates are clipped, but clipping without noise guarantees nothing; set privacy.noise")
    if table.noise and not deployed:
        said.append("privacy: here the noise comes from run.seed, and anyone who knows the seed can remove it")
    if table.masks and not deployed:
        said.append("privacy: nothing is masked on one machine; masks are for `harmofl deploy`")
    return said

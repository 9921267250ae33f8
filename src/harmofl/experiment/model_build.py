"""Construction of an experiment's model, optimizer and loss, with a trial before training."""

import re
import warnings
from collections.abc import Callable, Iterator, Sequence
from copy import deepcopy
from functools import partial
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from harmofl.data.site import Federation, Site
from harmofl.data.transforms import augment, augment_as_released, flip_volumes
from harmofl.errors import ConfigError, HarmoFLError, NotColorError
from harmofl.evaluation.losses import LOSSES
from harmofl.experiment.config import TASK_DEFAULTS
from harmofl.experiment.privacy_policy import check_model_privacy, simulated_protection
from harmofl.experiment.recording_choice import recorder_of
from harmofl.experiment.tables import EvaluationTable, Experiment, TrainingTable
from harmofl.federated.batch import Batch
from harmofl.federated.client import Training, batch_indices
from harmofl.federated.model import normalizer_of, role_of
from harmofl.methods import FedAvg
from harmofl.models import build_network
from harmofl.models.normalization import naming_single_values
from harmofl.optim.mixed_precision import computing


def build(
    experiment: Experiment,
    federation: Federation,
    method: FedAvg,
    device: torch.device,
    unseen: Sequence[Site] = (),
) -> Training:
    """Return the training settings of an experiment.

    Args:
        experiment: the resolved experiment.
        federation: the sites, for the shape of their images and the number of classes.
        method: the method, which adds the normalizer.
        device: device of the training steps.
        unseen: sites at which the model is only tested.

    Raises:
        ConfigError: if the device does not support the precision, if the network cannot be built, compiled or take
            the images, or if its output does not fit the loss.
    """
    table = experiment.training
    if table.precision == "tf32" and device.type != "cuda":
        raise ConfigError(f"training.precision: tf32 needs a CUDA device, got run.device={device}; set float32")
    if table.compile and not method.compiles:
        name = experiment.method_name
        raise ConfigError(f"training.compile must be false for {name}, as it uses hooks in the network; change it")
    training = Training(
        model=build_model(experiment, method, federation.sites[0].train.shape[0], len(federation.info.classes)),
        loss=LOSSES[table.loss or ""],
        optimizer=_optimizer(table, device),
        epochs=table.epochs,
        batch_size=table.batch_size or 0,
        last_alone=table.last_image == "alone",
        augment=_augmentation(experiment),
        seed=experiment.run.seed,
        precision=table.precision,
        device=device,
        protect=simulated_protection(experiment),
        updates=table.updates,
        drift=experiment.run.diagnostics,
        recorder=recorder_of(experiment, method, device),
    )
    check_model_privacy(experiment.privacy, method, training.model)
    _try_out(federation.sites, unseen, training, experiment.evaluation, method)
    return training


def _augmentation(experiment: Experiment) -> Callable[[Batch, np.random.Generator], Batch] | None:
    flips = flip_volumes if experiment.data.volumes else augment
    return {"none": None, "flips": flips, "flips-released": augment_as_released}[experiment.training.augment]


def build_model(experiment: Experiment, method: FedAvg, channels: int, classes: int) -> nn.Module:
    """Return the model of a resolved experiment: the method's normalizer, if any, and the network."""
    table = experiment.network
    network = build_network(
        table.name or "",
        channels=channels,
        classes=classes,
        norm=table.norm,
        seed=experiment.run.seed,
        options=table.options,
        spatial_dims=3 if experiment.data.volumes else 2,
    )
    if table.values != "0..1":
        network.register_forward_pre_hook(_RANGES[table.values])
    if experiment.training.compile:
        _check_compiler()
        torch._dynamo.config.recompile_limit = 64  # above the limit, the last sizes would run uncompiled
        network.compile(dynamic=False)  # else the results of a size depend on the sizes before it
    model: nn.Module = method.model(network)
    if not experiment.data.volumes:  # makes convolutions of images faster
        model = model.to(memory_format=torch.channels_last)  # type: ignore[call-overload]
    for name in model.state_dict():
        role_of(method, model, name)
    return model


def _as_bytes(network: nn.Module, inputs: tuple[Tensor, ...]) -> tuple[Tensor, ...]:
    """Scale images to [0, 255], as HarmoFL's released code reads volumes; runs after Psi, which commutes with it."""
    images, *others = inputs
    return images * 255, *others


def _as_deviations(network: nn.Module, inputs: tuple[Tensor, ...]) -> tuple[Tensor, ...]:
    """Scale images to [-2, 2], about mean 0 and deviation 1, as networks are initialized for; runs after Psi."""
    images, *others = inputs
    return images * 4 - 2, *others


_RANGES = {"0..255": _as_bytes, "-2..2": _as_deviations}
"""Hooks by the range of images at the network's input."""


def _check_compiler() -> None:
    """Raise ConfigError unless torch can compile here."""
    try:
        with warnings.catch_warnings(action="ignore"):  # torch's warnings about itself
            torch.compile(nn.ReLU())(torch.zeros(2))
    except Exception as error:  # torch raises various errors without a compiler
        reason = " ".join(re.sub(r"^backend=\S+ raised:\s*", "", str(error)).split("\n")[0].split())
        fix = "install a C++ compiler such as g++, or set it to false"
        raise ConfigError(f"training.compile: torch must be able to compile here, but {reason}; {fix}") from None


def _optimizer(table: TrainingTable, device: torch.device) -> Callable[[Iterator[nn.Parameter]], torch.optim.Optimizer]:
    """Return the optimizer's constructor, fused on CUDA; on a CPU fusing gains little and rounds differently."""
    given: dict[str, Any] = {"lr": table.lr or 0.0, "weight_decay": table.weight_decay}
    if device.type == "cuda":
        given["fused"] = True
    if table.optimizer == "sgd":
        return partial(torch.optim.SGD, momentum=table.momentum, **given)
    return partial(torch.optim.Adam, **given)


def device_of(name: str) -> torch.device:
    """Return the device with this name; "auto" is a GPU if there is one.

    Raises:
        ConfigError: if torch cannot use the device here.
    """
    if name == "auto":
        return torch.device("cuda" if torch.cuda.is_available() else "cpu")
    try:
        torch.empty(0, device=name)
    except (RuntimeError, AssertionError, NotImplementedError):
        raise ConfigError(
            f"the device must be one that torch can use here, got {name}; set it to cpu or auto"
        ) from None
    return torch.device(name)


IN_USE = 32
"""Batch size of a trained model at inference, also at sites that did not train."""


class _NormalizerError(ConfigError):
    """A user's own normalizer that does not return images."""


def _check_normalized(method: FedAvg, layer: nn.Module, inputs: tuple[Tensor, ...], output: object) -> None:
    """Raise an error unless the normalizer returned images of the shape of its input; a forward hook."""
    shape, dtype = tuple(inputs[0].shape), inputs[0].dtype
    got = tuple(output.shape) if isinstance(output, Tensor) else "None" if output is None else type(output).__name__
    where = f"{method.normalize}: forward() of {type(layer).__name__} must return a tensor of the"
    if not isinstance(output, Tensor) or got != shape:
        raise _NormalizerError(f"{where} shape of its input, {shape}, got {got}")
    if output.dtype not in (dtype, torch.bfloat16, torch.float16):  # as under autocast
        raise _NormalizerError(f"{where} type of its input, {dtype}, got {output.dtype}; end it with .to(x)")


def _try_out(
    sites: Sequence[Site], unseen: Sequence[Site], training: Training, table: EvaluationTable, method: FedAvg
) -> None:
    """Raise ConfigError unless a copy of the model takes the smallest batches that will occur and its output fits."""
    copy = deepcopy(training.model).to(training.device)
    if layer := normalizer_of(copy):
        layer.register_forward_hook(partial(_check_normalized, method))
    alone = training.last_alone
    for name, places, size, last_alone in (
        ("train", sites, training.batch_size, alone),
        ("val", sites, table.batch_size, alone),
        ("test", [site for site in sites if len(site.test)], table.test_batch_size or table.batch_size, alone),
        ("test", unseen, IN_USE, False),
    ):
        if not places:
            continue
        smallest = partial(_smallest, batch_size=size, last_alone=last_alone)
        site = min(places, key=lambda place: smallest(place.split(name).items))
        split = site.split(name)
        batch = split.training_batch(range(smallest(split.items)), np.random.default_rng(0))
        fix = "set data.size, another network.norm or batch size, or give the site more images"
        try:
            training.optimizer(copy.parameters())
            with torch.no_grad(), computing(training.precision, training.device), naming_single_values():
                logits = copy.train(name == "train")(batch.images.to(training.device))
            problem = _misfit(logits, len(site.classes), batch)
            if problem and not (isinstance(logits, Tensor) and logits.ndim == 1 + batch.targets.ndim):
                fix = f"set network.name to one for {site.task}, such as {TASK_DEFAULTS[site.task]['network']['name']}"
        except (_NormalizerError, NotColorError):
            raise
        except HarmoFLError as error:
            problem = str(error)
        except Exception as error:
            problem = " ".join(str(error).split())
        if problem:
            shape = "x".join(map(str, batch.images.shape))
            raise ConfigError(f"{site.name}: the network must take a batch of {shape} images, but: {problem}; {fix}")


def _smallest(count: int, batch_size: int, last_alone: bool) -> int:
    return min(len(index) for index in batch_indices(np.arange(count), batch_size, last_alone))


def _misfit(logits: object, classes: int, batch: Batch) -> str:
    expected = (len(batch), classes, *batch.targets.shape[1:])
    if not isinstance(logits, Tensor):
        return f"its output must be a tensor, got {type(logits).__name__}"
    return "" if logits.shape == expected else f"its output must be {expected}, got {tuple(logits.shape)}"

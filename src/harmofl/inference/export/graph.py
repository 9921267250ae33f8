"""Export of the model as one module from images to probabilities, and as checked ONNX and torch.export files."""

import logging
import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import numpy as np
import torch
from torch import Tensor, nn

from harmofl.errors import ConfigError, ExportError
from harmofl.experiment.trained_model import TrainedModel
from harmofl.federated.model import NORMALIZER, normalizer_of
from harmofl.inference.export.real_amplitude import FixedAmplitude
from harmofl.spectral.amplitude import AmplitudeNorm
from harmofl.spectral.image_norm import ImageNorm
from harmofl.spectral.radial_profile import ProfileNorm
from harmofl.utils.lazy_imports import optional

TOLERANCE = 1e-4
"""Largest allowed difference between the probabilities of a file and those of torch."""


class Exported(nn.Module):
    """Module from images (N, C, H, W) in [0, 1] to class probabilities (N, K), or (N, K, H, W) for masks.

    Volumes (N, C, D, H, W) have masks (N, K, D, H, W).
    """

    def __init__(self, model: nn.Module, size: tuple[int, ...]) -> None:
        super().__init__()
        layer = normalizer_of(model)
        if layer is not None and type(layer).forward is ImageNorm.forward:  # one's own forward is exported as it is
            setattr(model, NORMALIZER, _fixed(layer, size))
        self.model = model.to(memory_format=torch.contiguous_format)  # type: ignore[call-overload]

    def forward(self, image: Tensor) -> Tensor:
        """Return the probabilities, see the class."""
        found: Tensor = self.model(image).softmax(dim=1)
        return found


class _FixedNorm(nn.Module):
    """A normalizer in evaluation mode, without the state that decides if it learns."""

    def __init__(self, layer: ImageNorm) -> None:
        super().__init__()
        self.layer = layer

    def forward(self, x: Tensor) -> Tensor:
        """Return the normalized images."""
        return self.layer.normalized(x)


def _fixed(layer: ImageNorm, size: tuple[int, ...]) -> nn.Module:
    if layer.is_idle or not layer.count:
        return nn.Identity()
    if layer.lacks_own:
        raise ExportError("per=site needs a site that trained; choose one with --site")
    return FixedAmplitude(layer, size) if type(layer) in (AmplitudeNorm, ProfileNorm) else _FixedNorm(layer)  # type: ignore[arg-type]


def exported(trained: TrainedModel, site: str) -> Exported:
    """Return the module for a training site, or for the mean over the training sites if `site` is "".

    Raises:
        ConfigError: if the site did not train, or the run kept no statistics to fix.
        ExportError: if an image's output would depend on other images.
    """
    trained.check_trained(site)
    return Exported(trained.network(site), input_size(trained)).eval()


def input_size(trained: TrainedModel) -> tuple[int, ...]:
    """Return the size that the network takes: (H, W) of images, or (D, H, W) of patches of volumes."""
    return tuple(map(int, trained.card["size"]))


def images_like(trained: TrainedModel, count: int, seed: int = 0) -> Tensor:
    """Return (count, C, H, W) test images in [0, 1] with the falling spectrum of natural images; or such volumes."""
    size = input_size(trained)
    axes = tuple(range(-len(size), 0))
    noise = np.random.default_rng(seed).standard_normal((count, trained.card["channels"], *size))
    along = np.meshgrid(*map(np.fft.fftfreq, size[:-1]), np.fft.rfftfreq(size[-1]), indexing="ij")
    radius = np.sqrt(sum(f**2 for f in along))
    shaped = np.fft.irfftn(np.fft.rfftn(noise, axes=axes) / (radius + 1 / max(size)), s=size, axes=axes)
    low, high = shaped.min(axis=axes, keepdims=True), shaped.max(axis=axes, keepdims=True)
    return torch.from_numpy(((shaped - low) / (high - low)).astype(np.float32))


def write_onnx(module: Exported, images: Tensor, path: Path) -> Callable[[Tensor], np.ndarray]:
    """Write an ONNX file with a dynamic batch size; return a function that runs it by onnxruntime."""
    onnxruntime, _ = (optional(name, "ONNX", "export") for name in ("onnxruntime", "onnxscript"))
    with _quiet("ONNX"):
        program = torch.onnx.export(
            module,
            (torch.cat((images, images))[:2],),
            dynamo=True,
            input_names=["image"],
            output_names=["probabilities"],
            dynamic_shapes={"image": {0: torch.export.Dim("batch")}},
            verbose=False,
        )
        assert program is not None
        program.save(str(path), external_data=False)
    options = onnxruntime.SessionOptions()
    options.log_severity_level = 3
    session = onnxruntime.InferenceSession(str(path), options, providers=["CPUExecutionProvider"])
    return lambda x: np.asarray(session.run(None, {"image": x.numpy()})[0])


def write_pt2(module: Exported, images: Tensor, path: Path) -> Callable[[Tensor], np.ndarray]:
    """Write a torch.export file with a dynamic batch size; return a function that runs the loaded file."""
    with _quiet("torch.export"):
        batch = torch.export.Dim("batch", min=1)
        pair = torch.cat((images, images))[:2]
        program = torch.export.export(module, (pair,), dynamic_shapes={"image": {0: batch}})
        torch.export.save(program, path)
        loaded = torch.export.load(path).module()
    return lambda x: np.asarray(loaded(x).detach().numpy())


@torch.no_grad()
def output_difference(
    trained: TrainedModel, site: str, images: Tensor, answer: Callable[[Tensor], np.ndarray]
) -> float:
    """Return the largest difference between a file's probabilities and torch's, for one image and for all together.

    Raises:
        ExportError: if the difference is more than `TOLERANCE`.
    """
    model = trained.network(site)
    found = 0.0
    for part in (images[:1], images):
        expected = model(part).softmax(dim=1).numpy()
        found = max(found, float(np.abs(answer(part) - expected).max()))
    if not found <= TOLERANCE:
        raise ExportError(f"probabilities must equal torch's within {TOLERANCE:g}, got {found:.2g}; not exported")
    return found


@contextmanager
def _quiet(name: str) -> Iterator[None]:
    """Silence an exporter within the context, and raise ExportError for any of its errors."""
    logger = logging.getLogger("torch.onnx")
    level = logger.level
    logger.setLevel(logging.ERROR)
    try:
        with warnings.catch_warnings(action="ignore"):
            yield
    except (ConfigError, ExportError):
        raise
    except Exception as error:
        first: BaseException = error
        while first.__cause__ is not None:
            first = first.__cause__
        reason = (str(first).strip().splitlines() or [type(first).__name__])[0]
        raise ExportError(
            f"the network cannot be written as {name} ({reason}); choose others, as --format pt2 --format card"
        ) from error
    finally:
        logger.setLevel(level)

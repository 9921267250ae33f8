"""HarmoFL: federated learning on heterogeneous medical images.

Use `AmplitudeNorm` and `perturbed` in your own PyTorch program; to run experiments, use `load_experiment` and `run`,
or the command `harmofl`. Importing the package imports nothing else; each name is imported when it is first used.
"""

from typing import TYPE_CHECKING

from harmofl.utils.lazy_imports import lazily as _lazily

if TYPE_CHECKING:
    from harmofl.data.in_memory import federation_of
    from harmofl.data.site import open_federation
    from harmofl.errors import HarmoFLError
    from harmofl.experiment.config import load_experiment
    from harmofl.experiment.finished_run import load_run
    from harmofl.experiment.tables import Experiment
    from harmofl.experiment.trainer import resume, run
    from harmofl.federated.client import Training, run_client
    from harmofl.federated.messages import Broadcast, ClientUpdate, ServerState
    from harmofl.methods import METHODS, FedAvg, make_method
    from harmofl.optim.sharpness import perturbed
    from harmofl.spectral.amplitude import AmplitudeNorm, amplitude, with_amplitude
    from harmofl.spectral.image_norm import ImageNorm
    from harmofl.spectral.radial_profile import ProfileNorm

__all__ = [
    "METHODS",
    "AmplitudeNorm",
    "Broadcast",
    "ClientUpdate",
    "Experiment",
    "FedAvg",
    "HarmoFLError",
    "ImageNorm",
    "ProfileNorm",
    "ServerState",
    "Training",
    "amplitude",
    "federation_of",
    "load_experiment",
    "load_run",
    "make_method",
    "open_federation",
    "perturbed",
    "resume",
    "run",
    "run_client",
    "with_amplitude",
]

_HOMES = {
    **dict.fromkeys(("METHODS", "FedAvg", "make_method"), "methods"),
    **dict.fromkeys(("AmplitudeNorm", "amplitude", "with_amplitude"), "spectral.amplitude"),
    **dict.fromkeys(("Broadcast", "ClientUpdate", "ServerState"), "federated.messages"),
    "Experiment": "experiment.tables",
    "load_experiment": "experiment.config",
    **dict.fromkeys(("Training", "run_client"), "federated.client"),
    **dict.fromkeys(("resume", "run"), "experiment.trainer"),
    "HarmoFLError": "errors",
    "ImageNorm": "spectral.image_norm",
    "ProfileNorm": "spectral.radial_profile",
    "load_run": "experiment.finished_run",
    "federation_of": "data.in_memory",
    "open_federation": "data.site",
    "perturbed": "optim.sharpness",
}
__getattr__ = _lazily(__name__, _HOMES)


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})

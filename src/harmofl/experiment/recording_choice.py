"""Choice whether the steps of an experiment are recorded as CUDA graphs, by `training.graph`."""

import torch

from harmofl.experiment.tables import Experiment
from harmofl.federated.recording import CudaRecorder, Recorder
from harmofl.methods import FedAvg

IN_STEPS = ("model", "prepare", "local_step", "step_on", "gradient", "backward", "objective", "correct")
"""Functions of a method that act in its steps; a class with one of them declares `records` itself."""
OWN_NETWORKS = ("densenet", "unet")


def recorder_of(experiment: Experiment, method: FedAvg, device: torch.device) -> Recorder | None:
    """Return the recorder of the experiment's steps; None if they are not recorded."""
    if experiment.training.graph == "off" or why_not(experiment, method, device):
        return None
    return CudaRecorder(device)


def remark(experiment: Experiment, method: FedAvg, device: torch.device) -> list[str]:
    """Return a line if steps should be recorded, but cannot be."""
    reason = why_not(experiment, method, device) if experiment.training.graph == "on" else ""
    return [f"training.graph: steps are not recorded, as {reason}"] if reason else []


def why_not(experiment: Experiment, method: FedAvg, device: torch.device) -> str:
    """Return the reason why steps cannot be recorded; "" if they can, or probably can with an own network."""
    table, name = experiment.training, experiment.method_name
    layer = method.normalize.layer()
    if device.type != "cuda":
        return f"run.device is {device}, not cuda"
    if table.precision == "float16":
        return "the loss scale of float16 looks at the gradients of each step; set training.precision to bfloat16"
    if table.compile:
        return "training.compile is on; choose one of them"
    if not _declared(method):
        return f"{name} may compute something else in each step"
    if not method.step.records:
        return f"{method.step} may compute something else in each step"
    if layer is not None and not vars(type(layer)).get("records"):
        return f"{method.normalize} may look at its images"
    if table.graph == "auto" and experiment.network.name not in OWN_NETWORKS:
        return f"{experiment.network.name} may look at its maps"
    return ""


def _declared(method: FedAvg) -> bool:
    """Return True if every class of the method that acts in its steps declares that they may be recorded."""
    classes = [cls for cls in type(method).__mro__ if any(name in vars(cls) for name in IN_STEPS)]
    return all(vars(cls).get("records", False) for cls in classes)

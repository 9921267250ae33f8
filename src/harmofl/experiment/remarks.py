"""Remarks on an experiment for a reader of its results, in plain words."""

from collections.abc import Iterator, Sequence

from torch import nn

from harmofl.data.manifest import FederationInfo
from harmofl.data.site import Site
from harmofl.data.volume_split import VolumeSplit
from harmofl.experiment.tables import Experiment
from harmofl.methods import FedAvg
from harmofl.methods.parts.averages import Mean, Median, Trimmed
from harmofl.models.bn_calibration import caution


def remarks_on_method(experiment: Experiment, method: FedAvg, model: nn.Module, sites: int) -> list[str]:
    """Return the remarks on a method with this model, on one machine and in a deployment; `sites` train in a round."""
    return [*method.remarks(model), *_remarks_on_average(experiment, method, sites), *caution(model)]


def _remarks_on_average(experiment: Experiment, method: FedAvg, sites: int) -> Iterator[str]:
    """Yield remarks if the average part, or its weighting, changes nothing."""
    name, average, place = experiment.method_name, method.average, experiment.arrangement
    if place != "federated":
        if average != Mean():
            yield f"{place}: no weights are averaged, so {average} has no effect; leave it out"
    elif isinstance(average, Median | Trimmed):
        if average.weighting == "samples":
            yield f"{name}: {average} takes no p_i, so weighting=samples does not change the averaged weights"
        if sites < 3:
            yield f"{name}: {average} of the weights of {sites} sites is their mean; it takes 3 sites"


def remarks_on_sites(experiment: Experiment, info: FederationInfo) -> Iterator[str]:
    """Yield remarks on sites without scores, and on splits that make scores too high."""
    table = experiment.data
    if table.unseen and experiment.arrangement == "local":
        name, sites = experiment.method_name, ", ".join(table.unseen)
        yield f"{name} trains no common model: it has no score at {sites}, which did not train"
    for split, said in ((info.split, "the published split"), (table.split, "data.split=images")):
        if split == "images":
            yield f"{said} puts images of one patient into several splits, so scores are too high"


def remarks_on_patches(sites: Sequence[Site]) -> Iterator[str]:
    """Yield a remark if most of what a network sees of volumes is padding."""
    splits = [site.train for site in sites if isinstance(site.train, VolumeSplit)]
    share = max((split.padding for split in splits), default=0.0)
    if share > 0.5:
        size = "x".join(map(str, splits[0].patch_size))
        yield f"{share:.0%} of a patch of {size} voxels is padding, as volumes are smaller; reduce data.patch_size"

"""Published data sets of several hospitals: one module each with the same interface, and the table of their names."""

from collections.abc import Mapping

from harmofl.ingest.datasets import (
    camelyon17,
    dsb2018,
    fundus,
    medmnist,
    midog,
    monusac2020,
    monuseg2018,
    nuclei,
    prostate,
    tnbc,
)
from harmofl.ingest.datasets.dataset import About, Dataset, Discovered, Item, Wishes

_MODULES: tuple[Dataset, ...] = (
    *(camelyon17, nuclei, prostate),
    *(monusac2020, monuseg2018, tnbc),
    *(dsb2018, fundus, medmnist, midog),
)
PUBLISHED: Mapping[str, Dataset] = {module.ABOUT.name: module for module in _MODULES}
"""The modules by name: the paper's three tasks first, then the parts of the second, then the others."""

__all__ = ["PUBLISHED", "About", "Dataset", "Discovered", "Item", "Wishes"]

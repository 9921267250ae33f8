"""The data of sites: manifests, folder layouts, splits and decoded images."""

from typing import TYPE_CHECKING

from harmofl.utils.lazy_imports import lazily as _lazily

if TYPE_CHECKING:
    from harmofl.data.manifest import SPLITS, FederationInfo, Record
    from harmofl.data.site import Federation, Site, open_federation
    from harmofl.data.split import Split
    from harmofl.data.summary import describe
    from harmofl.data.transforms import augment

__all__ = [
    "SPLITS",
    "Federation",
    "FederationInfo",
    "Record",
    "Site",
    "Split",
    "augment",
    "describe",
    "open_federation",
]

_HOMES = {
    **dict.fromkeys(("SPLITS", "FederationInfo", "Record"), "manifest"),
    **dict.fromkeys(("Federation", "Site", "open_federation"), "site"),
    "Split": "split",
    "augment": "transforms",
    "describe": "summary",
}
__getattr__ = _lazily(__name__, _HOMES)

"""Sites' data: reading, checking, splitting, decoding and importing medical images of several hospitals."""

from typing import TYPE_CHECKING

from harmofl.lazily import lazily as _lazily

if TYPE_CHECKING:
    from harmofl.data.check import Problem, check_federation, find_problems
    from harmofl.data.importing import import_federation
    from harmofl.data.manifest import SPLITS, FederationInfo, Record
    from harmofl.data.site import Federation, Site, Split, open_federation
    from harmofl.data.summary import describe
    from harmofl.data.transforms import augment

__all__ = [
    "SPLITS",
    "Federation",
    "FederationInfo",
    "Problem",
    "Record",
    "Site",
    "Split",
    "augment",
    "check_federation",
    "describe",
    "find_problems",
    "import_federation",
    "open_federation",
]

_HOMES = {
    **dict.fromkeys(("Problem", "check_federation", "find_problems"), "check"),
    **dict.fromkeys(("SPLITS", "FederationInfo", "Record"), "manifest"),
    **dict.fromkeys(("Federation", "Site", "Split", "open_federation"), "site"),
    "augment": "transforms",
    "describe": "summary",
    "import_federation": "importing",
}
__getattr__ = _lazily(__name__, _HOMES)

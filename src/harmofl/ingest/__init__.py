"""Creation and checks of federations: import, published data sets, DICOM, synthetic images, inspection of images."""

from typing import TYPE_CHECKING

from harmofl.utils.lazy_imports import lazily as _lazily

if TYPE_CHECKING:
    from harmofl.ingest.importing import import_federation
    from harmofl.ingest.inspection.check_folder import check_federation, find_problems

__all__ = ["check_federation", "find_problems", "import_federation"]

_HOMES = {
    **dict.fromkeys(("check_federation", "find_problems"), "inspection.check_folder"),
    "import_federation": "importing",
}
__getattr__ = _lazily(__name__, _HOMES)

"""Masks as DICOM segmentations of their series (DICOM PS3.3, A.51), by highdicom."""

from collections.abc import Sequence
from importlib.metadata import version
from typing import Any

import numpy as np

from harmofl.errors import DataError
from harmofl.inference.prediction.image_reader import Picture, to_stored
from harmofl.inference.prediction.inputs import Input
from harmofl.ingest.dicom.dicom_files import pydicom
from harmofl.utils.lazy_imports import optional


def segmentation(one: Input, picture: Picture, labels: np.ndarray, classes: Sequence[str]) -> Any:
    """Return a DICOM SEG object with one segment per class, coded as tissue because class names have no code.

    Raises:
        ConfigError: if highdicom is not installed.
        DataError: if the series lacks attributes that a segmentation must copy.
    """
    package = optional("highdicom", "DICOM SEG", "dicom")
    assert picture.dicom is not None
    sources = [pydicom().dcmread(path) for path in one.files]
    voxels = to_stored(labels, picture.stored)  # (columns, rows, slices), slices in the volume's order
    frames = np.empty((len(picture.dicom.order), voxels.shape[1], voxels.shape[0]), np.uint8)
    frames[list(picture.dicom.order)] = np.moveaxis(voxels, 2, 0).transpose(0, 2, 1)
    try:
        return package.seg.Segmentation(
            source_images=sources,
            pixel_array=frames,
            segmentation_type=package.seg.SegmentationTypeValues.BINARY,
            segment_descriptions=_descriptions(package, classes),
            series_instance_uid=package.UID(),
            series_number=1000,
            sop_instance_uid=package.UID(),
            instance_number=1,
            manufacturer="HarmoFL",
            manufacturer_model_name="harmofl predict",
            software_versions=version("harmofl"),
            device_serial_number="0",
            series_description="HarmoFL segmentation",
            omit_empty_frames=bool(frames.any()),
        )
    except (AttributeError, ValueError, TypeError, KeyError) as error:  # raised by highdicom for missing attributes
        reason = str(error).splitlines()[0]
        raise DataError(f"cannot be the source of a DICOM SEG ({reason}); convert the series to NIfTI") from None


def _descriptions(package: Any, classes: Sequence[str]) -> list[Any]:
    from pydicom.sr.codedict import codes

    algorithm = package.AlgorithmIdentificationSequence(
        name="HarmoFL", version=version("harmofl"), family=codes.cid7162.ArtificialIntelligence
    )
    return [
        package.seg.SegmentDescription(
            segment_number=number,
            segment_label=name[:64],
            segmented_property_category=codes.SCT.Tissue,
            segmented_property_type=codes.SCT.Tissue,
            algorithm_type=package.seg.SegmentAlgorithmTypeValues.AUTOMATIC,
            algorithm_identification=algorithm,
        )
        for number, name in enumerate(classes)
        if number
    ]

"""DICOM series, photographs and segmentations as scanners and viewers write them."""

from pathlib import Path

import numpy as np
from pydicom import dcmread
from pydicom.dataset import Dataset, FileDataset, FileMetaDataset
from pydicom.sequence import Sequence
from pydicom.uid import CTImageStorage, ExplicitVRLittleEndian, SegmentationStorage, generate_uid

AXIAL = (1.0, 0.0, 0.0, 0.0, 1.0, 0.0)


def dataset(kind: str, patient: str, series: str, pixels: np.ndarray) -> FileDataset:
    meta = FileMetaDataset()
    meta.MediaStorageSOPClassUID = kind
    meta.MediaStorageSOPInstanceUID = generate_uid()
    meta.TransferSyntaxUID = ExplicitVRLittleEndian
    data = FileDataset("", {}, file_meta=meta, preamble=b"\0" * 128)
    data.SOPClassUID, data.SOPInstanceUID = kind, meta.MediaStorageSOPInstanceUID
    data.PatientID, data.PatientName, data.SeriesInstanceUID = patient, "Doe^Jane", series
    data.Rows, data.Columns = pixels.shape[-2:]
    data.SamplesPerPixel, data.PhotometricInterpretation = 1, "MONOCHROME2"
    data.BitsAllocated = data.BitsStored = 8 * pixels.dtype.itemsize
    data.HighBit, data.PixelRepresentation = data.BitsStored - 1, int(pixels.dtype.kind == "i")
    data.PixelData = pixels.tobytes()
    return data


def write(data: FileDataset, path: Path) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    data.save_as(path, enforce_file_format=True)


def write_series(
    folder: Path,
    voxels: np.ndarray,
    *,
    patient: str = "123",
    series: str | None = None,
    direction: tuple[float, ...] = AXIAL,
    origin: tuple[float, float, float] = (-10.0, -20.0, 5.0),
    spacing: tuple[float, float, float] = (0.5, 0.8, 3.0),
    skip: tuple[int, ...] = (),
    suffix: str = ".dcm",
) -> str:
    """(slices, rows, columns) int16, a file a slice in an order that is not the slices', values as Hounsfield units."""
    series = series or generate_uid()
    cosines = np.array(direction)
    normal = np.cross(cosines[:3], cosines[3:])
    for k, plane in enumerate(voxels):
        if k in skip:
            continue
        data = dataset(CTImageStorage, patient, series, (plane + 1024).astype(np.int16))
        data.Modality = "CT"
        data.RescaleSlope, data.RescaleIntercept = 1, -1024
        data.ImagePositionPatient = [float(v) for v in np.array(origin) + k * spacing[2] * normal]
        data.ImageOrientationPatient = list(direction)
        data.PixelSpacing = [spacing[0], spacing[1]]
        write(data, folder / f"IM{(k * 7) % 100:03d}{suffix}")
    return series


def as_a_scanner_writes(folder: Path) -> None:
    """What highdicom copies from the images of a series."""
    study, frame = generate_uid(), generate_uid()
    for number, path in enumerate(sorted(folder.iterdir()), start=1):
        data = dcmread(path)
        data.StudyInstanceUID, data.FrameOfReferenceUID, data.InstanceNumber = study, frame, number
        data.StudyID, data.AccessionNumber, data.ReferringPhysicianName = "1", "", ""
        data.StudyDate, data.StudyTime = "20260101", "000000"
        data.PatientBirthDate, data.PatientSex, data.SliceThickness = "", "", 3.0
        data.save_as(path, enforce_file_format=True)


def write_enhanced(path: Path, voxels: np.ndarray, *, slope: float = 1.0, patient: str = "123") -> None:
    """(slices, rows, columns) uint16 as one file with many frames, the last slice first, as newer scanners write."""
    data = dataset("1.2.840.10008.5.1.4.1.1.4.1", patient, generate_uid(), np.ascontiguousarray(voxels[::-1]))
    data.Modality, data.NumberOfFrames = "MR", len(voxels)
    shared, way, measures, scale = Dataset(), Dataset(), Dataset(), Dataset()
    way.ImageOrientationPatient = list(AXIAL)
    measures.PixelSpacing = [0.5, 0.8]
    scale.RescaleSlope, scale.RescaleIntercept = slope, 0
    shared.PlaneOrientationSequence, shared.PixelMeasuresSequence = Sequence([way]), Sequence([measures])
    shared.PixelValueTransformationSequence = Sequence([scale])
    groups = []
    for k in reversed(range(len(voxels))):
        group, place = Dataset(), Dataset()
        place.ImagePositionPatient = [-10.0, -20.0, 5.0 + 3.0 * k]
        group.PlanePositionSequence = Sequence([place])
        groups.append(group)
    data.SharedFunctionalGroupsSequence = Sequence([shared])
    data.PerFrameFunctionalGroupsSequence = Sequence(groups)
    write(data, path)


def write_segmentation(
    path: Path,
    labels: np.ndarray,
    *,
    origin: tuple[float, float, float] = (-10.0, -20.0, 5.0),
    spacing: tuple[float, float, float] = (0.5, 0.8, 3.0),
    patient: str = "",
    kind: str = "BINARY",
) -> None:
    """(slices, rows, columns) labels as a DICOM SEG; empty frames are left out, as viewers do."""
    frames, groups = [], []
    for label in range(1, labels.max() + 1):
        for k, plane in enumerate(labels == label):
            if plane.any():
                frames.append(plane.astype(np.uint8) * (200 if kind == "FRACTIONAL" else 1))
                if kind == "FRACTIONAL":
                    frames[-1][0, 0] = 3  # hardly there
                group, place, which = Dataset(), Dataset(), Dataset()
                place.ImagePositionPatient = [origin[0], origin[1], origin[2] + k * spacing[2]]
                which.ReferencedSegmentNumber = label
                group.PlanePositionSequence = Sequence([place])
                group.SegmentIdentificationSequence = Sequence([which])
                groups.append(group)
    data = dataset(SegmentationStorage, patient, generate_uid(), np.stack(frames))
    data.SegmentationType = kind
    data.Modality, data.NumberOfFrames = "SEG", len(frames)
    shared, way, measures = Dataset(), Dataset(), Dataset()
    way.ImageOrientationPatient = list(AXIAL)
    measures.PixelSpacing = [spacing[0], spacing[1]]
    shared.PlaneOrientationSequence, shared.PixelMeasuresSequence = Sequence([way]), Sequence([measures])
    data.SharedFunctionalGroupsSequence = Sequence([shared])
    data.PerFrameFunctionalGroupsSequence = Sequence(groups)
    data.SegmentSequence = Sequence([Dataset() for _ in range(labels.max())])
    write(data, path)


def write_xray(path: Path, pixels: np.ndarray, *, patient: str = "", inverted: bool = False, **tags: object) -> None:
    data = dataset("1.2.840.10008.5.1.4.1.1.1.1", patient, generate_uid(), pixels)
    data.Modality = "DX"
    data.PhotometricInterpretation = "MONOCHROME1" if inverted else "MONOCHROME2"
    for name, value in tags.items():
        setattr(data, name, value)
    write(data, path)

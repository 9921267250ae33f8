"""The tutorial on volumes, followed line by line, on scans of three hospitals in DICOM and NIfTI."""

import re
import shlex
from pathlib import Path

import forked
import numpy as np
import pydicom
import pytest
from dicom_files import as_a_scanner_writes, write_segmentation, write_series
from volumes_on_disk import needs_monai, save_volume, scene

pytestmark = needs_monai
PAGE = Path(__file__).parent.parent / "docs" / "tutorial_volumes.md"
PLACE = {"origin": (-12.0, -13.0, 5.0), "spacing": (1.0, 1.0, 2.0)}


def slices(voxels: np.ndarray) -> np.ndarray:
    """Return (slices, rows, columns) of a scene: rows to the back, columns to the left."""
    return np.ascontiguousarray(np.rint(voxels).astype(np.int16).transpose(2, 1, 0)[:, ::-1, ::-1])


def write_scans(root: Path) -> None:
    """Write five scans of different shapes at each of three hospitals."""
    for number, site in enumerate(("north", "south", "west")):
        for k in range(5):
            voxels, labels = scene(10 * number + k, (26 + k, 24, 12 + 2 * number), gain=1.0 + number)
            images, masks = root / site / "images", root / site / "masks"
            if site == "west":
                save_volume(images / f"p{k}.nii.gz", voxels, np.diag([1.0, 1.0, 2.0, 1.0]))
                save_volume(masks / f"p{k}.nii.gz", labels, np.diag([1.0, 1.0, 2.0, 1.0]))
                continue
            write_series(images / f"p{k}", slices(voxels), patient=f"{site}{k}", **PLACE)
            write_segmentation(masks / f"p{k}.dcm", slices(labels), patient=f"{site}{k}", **PLACE)


def test_every_line_of_the_tutorial_works_in_its_order(tmp_path: Path) -> None:
    pytest.importorskip("highdicom", reason="needs highdicom: pip install 'harmofl[dicom]'")
    write_scans(tmp_path / "scans")
    write_series(tmp_path / "new" / "p9", slices(scene(99)[0]), patient="id9", **PLACE)
    as_a_scanner_writes(tmp_path / "new" / "p9")
    text = PAGE.read_text(encoding="utf-8")
    (settings,) = re.findall(r"```toml\n(.*?)```", text, flags=re.DOTALL)
    (tmp_path / "volumes.toml").write_text(settings)
    lines = re.findall(r"^ {4}(harmofl .+)$", text, flags=re.MULTILINE)
    assert len(lines) >= 10
    for line in lines:
        done = forked.run("-m", *shlex.split(line), cwd=tmp_path)
        assert done.returncode == 0, f"{line}\n{done.stdout}{done.stderr}"
    for made in ("hospitals.png", "shift/shift.html", "runs/first/report.html", "runs/compared/report.html"):
        assert (tmp_path / made).exists(), made
    assert (tmp_path / "predicted" / "overlays" / "p9.png").exists() and any((tmp_path / "exported").iterdir())
    found = pydicom.dcmread(tmp_path / "predicted" / "p9.dcm")
    series = pydicom.dcmread(next((tmp_path / "new" / "p9").iterdir()))
    assert found.SegmentSequence[0].SegmentLabel == "lesion" and found.PatientID == "id9"
    assert found.StudyInstanceUID == series.StudyInstanceUID
    assert found.ReferencedSeriesSequence[0].SeriesInstanceUID == series.SeriesInstanceUID

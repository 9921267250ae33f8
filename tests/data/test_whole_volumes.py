"""Folders of volumes of different shapes and spacing: checked, imported and shown as a run reads them whole."""

from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from typer.testing import CliRunner
from volumes_on_disk import SPACING, needs_monai, save_volume, scene, write_volumes

from harmofl.cli.main import app
from harmofl.errors import ConfigError
from harmofl.ingest import find_problems

WHOLE = ("--mode", "volumes")


@pytest.fixture(scope="module")
def scans(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Two sites of volumes of two shapes; the second has thicker slices of another size, and a larger volume."""
    root = write_volumes(tmp_path_factory.mktemp("scans"), sites=1)
    for k in range(5):
        voxels, labels = scene(50 + k, (30 + k, 24, 10))
        for part, array in (("images", voxels), ("masks", labels)):
            spacing = np.diag([*SPACING[:2], 2 * SPACING[2] if k else SPACING[2], 1.0])
            save_volume(root / "site-1" / part / f"v{k}.nii.gz", array, spacing)
    return root


def said(*words: object) -> tuple[int, str]:
    done = CliRunner().invoke(app, [str(word) for word in words])
    return done.exit_code, " ".join(done.output.split())


def test_shapes_are_errors_for_slices_alone(scans: Path) -> None:
    code, text = said("data", "check", scans)
    assert code == 2 and "with --size or data.size, or keep volumes whole: " in text
    assert 'data.mode="volumes" in a run, --mode volumes in data commands' in text
    assert "slices are not resampled" in text
    code, text = said("data", "check", scans, *WHOLE)
    assert code == 0 and "0 errors" in text and "resampled" not in text


def test_other_mistakes_are_found_in_whole_volumes(scans: Path, tmp_path: Path) -> None:
    root = write_volumes(tmp_path / "broken", sites=1)
    save_volume(root / "site-0" / "images" / "v0.nii.gz", scene(1, (28, 24, 12))[0], np.diag([*SPACING, 1.0]))
    moved = np.diag([*SPACING, 1.0])
    moved[0, 3] = 9
    save_volume(root / "site-0" / "masks" / "v1.nii.gz", scene(1, (26, 24, 14))[1], moved)
    errors = [problem for problem in find_problems(root, volumes=True) if problem.severity == "error"]
    assert [problem.file for problem in errors] == ["images/v0.nii.gz", "images/v1.nii.gz"]


def test_photographs_and_classes_have_no_volumes(federation: Path) -> None:
    with pytest.raises(ConfigError, match=r'data.mode = "volumes" needs NIfTI volumes, got site-1/'):
        find_problems(federation, volumes=True)


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (("data", "check", "scans", "--mode", "cubes"), "--mode must be slices or volumes, got 'cubes'"),
        (("data", "check", "scans", *WHOLE, "--size", "8"), "--size has no effect with --mode volumes"),
        (("data", "import", "scans", "--to", "x", *WHOLE, "--channels", "3"), "--channels has no effect with --mode"),
        (("data", "show", "scans", *WHOLE, "--size", "8"), "--size has no effect with --mode volumes"),
    ],
)
def test_options_of_slices_are_refused(words: tuple[str, ...], message: str) -> None:
    done = CliRunner().invoke(app, words)
    assert isinstance(done.exception, ConfigError) and message in str(done.exception)


@needs_monai
def test_volumes_are_imported_and_shown_as_they_are(scans: Path, tmp_path: Path) -> None:
    code, text = said("data", "import", scans, "--to", tmp_path / "fed", *WHOLE)
    assert code == 0, text
    assert (tmp_path / "fed" / "site-1" / "images" / "v4.nii.gz").exists()
    assert "size" not in (tmp_path / "fed" / "federation.toml").read_text()
    code, text = said("data", "show", tmp_path / "fed", *WHOLE, "--picture", tmp_path / "sheet.png")
    assert code == 0, text
    assert "volumes are resampled to the median spacing of the training volumes" in text
    assert "each volume with axial above, coronal below, sagittal at the right" in text
    with Image.open(tmp_path / "sheet.png") as sheet:
        assert sheet.size[0] > 1000 and len(sheet.convert("L").getcolors() or []) > 50


def test_the_shift_is_measured_between_sites_of_different_shapes(scans: Path, tmp_path: Path) -> None:
    code, text = said("data", "shift", scans, "--out", tmp_path / "shift", "--size", 24, "--repeats", 1)
    assert code == 0 and (tmp_path / "shift" / "shift.html").exists(), text

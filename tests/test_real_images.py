"""Real images from several sites, where they are beside the checkout."""

import json
from pathlib import Path

import pytest
import torch

from harmofl import amplitude, load_experiment, open_federation, run, with_amplitude
from harmofl.data.manifest import read_manifest
from harmofl.data.site import Site
from harmofl.ingest import import_federation


def spectra(site: Site, count: int = 40) -> tuple[torch.Tensor, torch.Tensor]:
    """Images and the mean amplitude spectra of two halves of a site, in dB, (2, C, H, W//2 + 1)."""
    images = site.train.batch(range(min(count, len(site.train)))).images
    return images, decibels(images)


def decibels(images: torch.Tensor) -> torch.Tensor:
    halves = [amplitude(images[start::2]).mean(dim=0) for start in (0, 1)]
    return 20 * torch.stack(halves).clamp_min(1e-3).log10()


def distance(a: torch.Tensor, b: torch.Tensor) -> float:
    return float((a - b).abs().mean())


@pytest.mark.shared("data/bloodcells")
def test_sites_differ_in_amplitude_and_no_longer_after_normalization(shared_path: Path) -> None:
    federation = open_federation(shared_path / "data" / "bloodcells", size=(48, 48))
    found = [spectra(site) for site in federation.sites]
    within = max(distance(*halves) for _, halves in found)
    between = min(distance(found[i][1][0], found[j][1][0]) for i, j in ((0, 1), (0, 2), (1, 2)))
    assert between > 2 * within
    A = torch.stack([amplitude(images).mean(dim=0) for images, _ in found]).mean(dim=0)
    after = [decibels(with_amplitude(images, A)) for images, _ in found]
    assert max(distance(after[i][0], after[j][0]) for i, j in ((0, 1), (0, 2), (1, 2))) < 0.01


@pytest.mark.shared("data/bloodcells")
def test_blood_cells_are_learnt(shared_path: Path, tmp_path: Path) -> None:
    """Four classes, balanced accuracy by chance 0.25."""
    settings = {
        "data.folder": str(shared_path / "data" / "bloodcells"),
        "data.size": [32, 32],
        "method.name": "fedavg",
        "run.threads": 1,
        "network.norm": "batch-stats",
        "network.options": {"growth": 8, "blocks": [2, 2], "initial": 16},
        "training.rounds": 4,
        "training.lr": 0.05,
        "training.augment": "flips",
    }
    result = run(load_experiment(None, settings), tmp_path / "run")
    assert list(result["test"]) == ["A_pbc_barcelona", "B_bccd", "C_jtsc_tecom"]
    assert result["num_images"]["A_pbc_barcelona"] == {"train": 560, "val": 80, "test": 160}
    assert result["summary"]["mean"] > 0.4


@pytest.mark.shared("data/nuclei")
def test_nuclei_are_segmented(shared_path: Path, tmp_path: Path) -> None:
    """HarmoFL over six sites; an empty prediction scores below 0.1."""
    settings = {
        "data.folder": str(shared_path / "data" / "nuclei"),
        "data.size": [32, 32],
        "run.threads": 1,
        "network.options": {"features": 4},
        "training.rounds": 3,
        "training.lr": 0.004,
    }
    result = run(load_experiment(None, settings), tmp_path / "run")
    assert len(result["test"]) == 6
    assert result["summary"]["mean"] > 0.2


@pytest.mark.shared("data/hippocampus")
def test_volumes_are_scored_case_by_case(shared_path: Path, tmp_path: Path) -> None:
    """2.5-D slices of imported NIfTI volumes; the Dice of a case pools its slices, so there is one score a volume."""
    names = ("background", "anterior", "posterior")
    import_federation(shared_path / "data" / "hippocampus", tmp_path / "fed", size=(24, 24), channels=3, classes=names)
    settings = {
        "data.folder": str(tmp_path / "fed"),
        "run.threads": 1,
        "network.options": {"features": 4},
        "network.norm": "instance",
        "method.name": "fedavg",
        "training.rounds": 2,
        "training.lr": 0.004,
    }
    result = run(load_experiment(None, settings), tmp_path / "run")
    cases = json.loads((tmp_path / "run" / "cases.json").read_text())["hippocampus"]
    volumes = {record.image for record in read_manifest(tmp_path / "fed/hippocampus") if record.split == "test"}
    assert {f"images/{case}.nii.gz" for case in cases["cases"]} == volumes
    assert len(volumes) == 12
    assert result["summary"]["mean"] > 0.3


@pytest.mark.shared("data/hippocampus")
def test_whole_volumes_are_learnt(shared_path: Path, tmp_path: Path) -> None:
    """Patches of MRI in three dimensions; all background scores 0."""
    pytest.importorskip("monai", reason="needs MONAI: pip install 'harmofl[monai]'")
    settings = {
        "data.folder": str(shared_path / "data" / "hippocampus"),
        "data.mode": "volumes",
        "data.patch_size": [32, 48, 32],
        "data.images_per_site": 12,
        "run.threads": 1,
        "network.options": {"features": [4, 8, 8, 16, 16, 8]},
        "method.name": "fedavg",
        "training.rounds": 4,
        "training.lr": 0.004,
        "evaluation.every": 4,
    }
    result = run(load_experiment(None, settings), tmp_path / "run")
    assert result["summary"]["mean"] > 0.5

"""Own data listed in a CSV file."""

import folders_on_disk as disk
import numpy as np
import pytest

from harmofl import open_federation
from harmofl.data.layout.image_table import Columns
from harmofl.data.manifest import read_manifest
from harmofl.ingest import find_problems, import_federation


def write_table(root, rows, header="image,mask,hospital,patient_id"):
    root.mkdir(parents=True, exist_ok=True)
    (root / "export.csv").write_text("\n".join([header, *rows]) + "\n")
    return root / "export.csv"


def segmentation(root, images=8):
    for k in range(images):
        disk.save(root / f"scans/{k}.png", disk.photograph(k))
        disk.save(root / f"drawn/{k}-mask.png", disk.mask(k))
    rows = [f"scans/{k}.png,drawn/{k}-mask.png,{'ab'[k % 2]},p{k}" for k in range(images)]
    return write_table(root, rows)


def test_sites_and_masks_by_column(tmp_path):
    table = segmentation(tmp_path / "in")
    assert not [p for p in find_problems(table) if p.severity == "error"]
    info = import_federation(table, tmp_path / "fed")
    assert info.task == "segmentation" and info.classes == ("background", "foreground")
    (record, *_) = read_manifest(tmp_path / "fed/a")
    assert (record.image, record.target, record.patient) == ("images/scans/0.png", "masks/drawn/0-mask.png", "p0")
    direct = open_federation(table)
    copied = open_federation(tmp_path / "fed")
    assert (direct.sites[1].test.images == copied.sites[1].test.images).all()


def test_classes_under_other_names_and_absolute_paths(tmp_path):
    rows = []
    for k in range(12):
        disk.save(tmp_path / f"in/{k}.png", disk.photograph(k))
        rows.append(f"{tmp_path}/in/{k}.png,{'benign' if k % 2 else 'malignant'},{'XY'[k // 6]}")
    table = write_table(tmp_path / "in", rows, "where,Diagnosis,Scanner")
    columns = Columns(image="where", site="scanner")
    assert import_federation(table, tmp_path / "fed", columns=columns).classes == ("benign", "malignant")
    assert {r.split for r in read_manifest(tmp_path / "fed/X")} == {"train", "val", "test"}


def test_a_table_without_sites_is_one(tmp_path):
    rows = [f"{k}.png,{'ab'[k % 2]}" for k in range(6)]
    for k in range(6):
        disk.save(tmp_path / f"in/{k}.png", disk.photograph(k))
    import_federation(write_table(tmp_path / "in", rows, "file,label"), tmp_path / "fed")
    assert [site.name for site in open_federation(tmp_path / "fed").sites] == ["export"]


@pytest.mark.parametrize(
    ("rows", "header", "expected"),
    [
        (["1.png,a"], "picture,label", r"a column must give the image, named one of image, .* --image-column"),
        (["1.png,a"], "file,kind", r"a column must give the target, .* --target-column"),
        ([], "file,label", "must have a row for each image"),
        (["1.png,"], "file,label", r"export.csv:2: label is empty"),
        (["1.png,a,train", "2.png,a,later"], "file,label,split", r"export.csv:3: split must be train, val or test"),
        (
            ["1.png,a,x,later", "2.png,b,../y,test"],
            "file,label,site,split",
            r":2: split .* \(2 rows have such faults\)$",
        ),
        (["/etc/passwd,a"], "file,label", r"export.csv:2: /etc/passwd must be below the table's folder"),
        (["../1.png,a", "2.png,b", "3.png,a"], "file,label", r"must be inside its site's folder"),
        (["1.png,a,../x", "2.png,b,y"], "file,label,site", r"export.csv:2: a site must have a valid folder name"),
        ([f"1.png,a,{'x' * 300}"], "file,label,site", r"export.csv:2: a site must have a valid folder name"),
        (['1.png,a,"x\ny"'], "file,label,site", r"export.csv:3: a site must have a valid folder name"),
        (["1.png,a", "2.png,a", "3.png,a"], "file,label", r"2 to 255 classes, got only 'a'; add rows of the others"),
        (
            ["1.png,a,b"],
            "file,label",
            r"export.csv:2: must have one value per column, got 3 for 2 columns, the last 'b'",
        ),
        (["1.png,a,b"], "file,label,mask", r"give the target, but mask and label could; choose one with --target"),
        (["x\\1.png,a"], "file,label", r"export.csv:2: folders in a path must be separated by /, got x.1.png"),
        (["1.png,a", "2.png,2-mask.png"], "file,label", r"export.csv:2: targets must all be masks or all be classes"),
    ],
)
def test_what_does_not_hold(tmp_path, rows, header, expected):
    for k in range(4):
        disk.save(tmp_path / f"in/{k}.png", disk.photograph(k))
    table = write_table(tmp_path / "in", rows, header)
    disk.import_refused(table, tmp_path / "fed", expected)
    assert not (tmp_path / "fed").exists()


def test_labels_are_stratified(tmp_path):
    rows = []
    for k in range(40):
        disk.save(tmp_path / f"in/{k}.png", disk.photograph(k))
        rows.append(f"{k}.png,{'rare' if k % 8 == 0 else 'common'}")
    import_federation(write_table(tmp_path / "in", rows, "file,label"), tmp_path / "fed")
    federation = open_federation(tmp_path / "fed")
    assert all((split.targets == 1).any() for split in (federation.sites[0].train, federation.sites[0].test))
    assert np.bincount(federation.sites[0].train.targets).tolist() == [25, 3]


def test_columns_that_are_not_heeded_are_told_of(tmp_path):
    rows = [f"{k}.png,{'ab'[k % 2]},north,p{k // 2}" for k in range(8)]
    for k in range(8):
        disk.save(tmp_path / f"in/{k}.png", disk.photograph(k))
    table, told = write_table(tmp_path / "in", rows, "file,label,ward,who"), []
    import_federation(table, tmp_path / "a", warned=told.append)
    assert [line.split(",")[0].split(":")[1].strip() for line in told[:3]] == [
        *("no column gives the site", "no column gives the patient", "columns that are not used")
    ]
    assert "warning: columns that are not used: ward, who" in told
    told.clear()
    import_federation(table, tmp_path / "b", columns=Columns(site="ward", patient="who"), warned=told.append)
    assert not [line for line in told if "column" in line]

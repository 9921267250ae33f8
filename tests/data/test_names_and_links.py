"""Names and links as file systems and programs leave them: umlauts, case, line breaks, loops, and "nan"."""

import unicodedata
from dataclasses import replace
from pathlib import Path

import pytest
from folders_on_disk import mask, photograph, records_of, refused, save, texts, write_classes, write_masks, write_tree

from harmofl.data import open_federation
from harmofl.data.layout.reader import read_layout
from harmofl.data.layout.site_files import Listing, files_below, subfolders
from harmofl.data.manifest import write_manifest
from harmofl.errors import DataError
from harmofl.ingest import find_problems, import_federation

NFC, NFD = (unicodedata.normalize(form, "Prüfung") for form in ("NFC", "NFD"))


@pytest.mark.parametrize("place", ["a/latest", "a/images/latest", "latest", "a/masks/up"])
@pytest.mark.parametrize("target", [".", "..", "/"])
def test_a_link_to_a_folder_above(tmp_path, place, target):
    """Each real folder once, however a link leads back; "/" stands for the root of the federation."""
    root = write_masks(tmp_path / "d")
    (root / place).symlink_to(root if target == "/" else target)
    if target != ".." or "/" in place:  # else the link leads out of the federation
        assert [len(site.records) for site in read_layout(root).sites] == [6, 6]
        assert len([path for path in files_below(root) if path.suffix == ".png"]) == 24
        assert not [problem for problem in find_problems(root) if problem.severity == "error"]
    import_federation(root / "a", tmp_path / "new")


def test_a_link_to_another_site_is_no_site(tmp_path):
    write_classes(tmp_path)
    (tmp_path / "latest").symlink_to("b")
    (tmp_path / "a/kitten").symlink_to("cat")
    files = read_layout(tmp_path)
    assert [site.name for site in files.sites] == ["a", "b"]
    assert files.info.classes == ("cat", "dog")
    twice = "is not used: a link to a folder that is already read"
    assert [text for text in texts(tmp_path, "warning") if "link" in text] == [
        f"a/kitten: {twice}",
        f"latest: {twice}",
    ]


def test_links_that_lead_to_one_another_end(tmp_path):
    for k in range(12):
        (tmp_path / str(k)).mkdir()
        for other in range(12):
            (tmp_path / str(k) / f"to{other}").symlink_to(f"../{other}")
        save(tmp_path / str(k) / "x.png", photograph(k))
    assert len(files_below(tmp_path)) == 12
    assert len(subfolders(tmp_path / "0")) == 11


def test_an_umlaut_is_one_character_or_two(tmp_path):
    for k in range(6):
        save(tmp_path / f"a/images/{NFC}{k}.png", photograph(k))
        save(tmp_path / f"a/masks/{NFD}{k}.png", mask(k))
    (site,) = open_federation(tmp_path).sites
    assert site.train.targets.max() == 1
    (tmp_path / "metadata.csv").write_text(
        "\n".join(["file,patient", *(f"{NFD}{k}.png,{(NFC, NFD)[k % 2]}{k // 2}" for k in range(6))])
    )
    (listed,) = read_layout(tmp_path).sites
    assert listed.records[0].image == f"images/{NFC}0.png"
    assert {record.patient for record in listed.records} == {f"{NFC}{k}" for k in range(3)}


def test_classes_sites_and_manifests_in_two_forms(tmp_path):
    for site, form in (("a", NFC), ("b", NFD)):
        for k in range(4):
            save(tmp_path / f"d/{site}/{form}/x{k}.png", photograph(k))
            save(tmp_path / f"d/{site}/other/y{k}.png", photograph(9 + k))
    assert read_layout(tmp_path / "d").info.classes == (NFC, "other")
    tree = write_tree(tmp_path / "t")
    (tree / "a/images/p0.png").rename(tree / f"a/images/{NFD}.png")
    records = records_of()
    write_manifest(tree / "a", [replace(records[0], image=f"images/{NFC}.png"), *records[1:]])
    assert read_layout(tree).sites[0].records[0].image == f"images/{NFD}.png"
    (tmp_path / "c").mkdir()
    write_masks(tmp_path / "c", (NFD, "b"))
    (tmp_path / "c/metadata.csv").write_text(
        "\n".join(["site,file", *(f"{site},p{k}.png" for site in (NFC, "b") for k in range(6))])
    )
    assert [len(site.records) for site in read_layout(tmp_path / "c").sites] == [6, 6]


@pytest.mark.parametrize("named", ["IMAGES/P0.PNG", "images\\p0.png", "p0.PNG", "Images/p0.png"])
def test_files_are_found_as_on_other_systems(tmp_path, named):
    write_masks(tmp_path, ("a",), images=3)
    rows = [f"{named},train", "p1.png,val", "p2.png,test"]
    (tmp_path / "metadata.csv").write_text("\n".join(["file,split", *rows]))
    assert [record.image for record in read_layout(tmp_path).sites[0].records] == [f"images/p{k}.png" for k in range(3)]
    (tmp_path / "metadata.csv").write_text("\n".join(["file,split", *rows, "p0.png,train"]))
    assert "a/images/p0.png: an image must have one row, got 2" in refused(tmp_path)


def test_names_that_differ_in_case_alone_are_not_guessed_at(tmp_path):
    for name in ("x.png", "X.png"):
        save(tmp_path / name, photograph(0))
    listing = Listing(tmp_path)
    assert listing.find("X.png") == "X.png" and listing.find("x.PNG") == "" and listing.find("../x.png") == ""


@pytest.mark.parametrize("name", ["a/images/p\n1.png", "a/masks/x\r.png", "b\n", "a/images/\x1b[2J.png"])
def test_names_with_line_breaks(tmp_path, name):
    write_masks(tmp_path)
    old = "b" if name == "b\n" else "a/images/p1.png" if "images" in name else "a/masks/p1.png"
    (tmp_path / old).rename(tmp_path / name)
    message = refused(tmp_path)
    assert message.isprintable() and "must not hold line breaks; rename it" in message
    assert str(find_problems(tmp_path)[0]).isprintable()


EMPTY = ["nan", "NaN", "NA", "N/A", "null", "None", "<NA>", ""]


@pytest.mark.parametrize("empty", EMPTY)
@pytest.mark.parametrize("column", ["label", "site", "patient", "split"])
def test_empty_values_are_empty(tmp_path, empty, column):
    rows = []
    for k in range(8):
        save(tmp_path / f"{k}.png", photograph(k))
        row = {"label": "ab"[k % 2], "site": "s", "patient": str(k), "split": "train"}
        rows.append(f"{k}.png," + ",".join({**row, **({column: empty} if k > 4 else {})}.values()))
    (tmp_path / "t.csv").write_text("\n".join(["image,label,site,patient,split", *rows]))
    message = refused(tmp_path / "t.csv")
    assert f"t.csv:7: {column} is empty" in message and "so are 2 more rows" in message
    assert not empty or f"({empty!r} stands for no value)" in message


def test_empty_values_of_other_tables(tmp_path):
    write_masks(tmp_path, ("a",))
    (tmp_path / "metadata.csv").write_text("\n".join(["file,patient", *(f"p{k}.png,nan" for k in range(6))]))
    message = "metadata.csv:2: patient is empty ('nan' stands for no value); so are all 6 rows"
    assert message in refused(tmp_path)
    records = [replace(record, patient="nan", case="nan") for record in records_of()]
    assert "manifest.csv:2: patient is empty ('nan' stands for no value)" in refused(
        write_tree(tmp_path / "t", records)
    )


def test_a_file_may_be_called_none(tmp_path):
    """Of a class folder "None" and a file nan.png, whose patient is called as the file."""
    write_classes(tmp_path / "d")
    for site in "ab":
        (tmp_path / f"d/{site}/cat").rename(tmp_path / f"d/{site}/None")
        (tmp_path / f"d/{site}/dog/dog0.png").rename(tmp_path / f"d/{site}/dog/nan.png")
    import_federation(tmp_path / "d", tmp_path / "new")
    assert open_federation(tmp_path / "new").info.classes == ("None", "dog")
    assert (Path(tmp_path) / "new/a/images/dog/nan.png").is_file()


def test_names_that_a_file_system_takes_for_one(tmp_path, monkeypatch):
    """As Windows and macOS do: what is written second would replace what was first."""
    for name in ("x.png", "X.png", "y.png", "z.png"):
        save(tmp_path / "d/a/images" / name, photograph(0))
        save(tmp_path / "d/a/masks" / name, mask(0))
    exists = Path.exists

    def folding(path):
        beside = path.parent.iterdir() if "images" in path.parts and path.parent.is_dir() else ()
        return exists(path) or any(other.name.lower() == path.name.lower() for other in beside)

    monkeypatch.setattr(Path, "exists", folding)
    with pytest.raises(
        DataError, match=r"a/images/x.png: has a name that this file system does not distinguish from another, x.png"
    ):
        import_federation(tmp_path / "d", tmp_path / "new")
    assert not exists(tmp_path / "new")


def test_folders_that_may_not_be_read(tmp_path, monkeypatch):
    write_masks(tmp_path)

    def closed(path):
        raise PermissionError(13, "Permission denied")

    iterdir = Path.iterdir
    monkeypatch.setattr(Path, "iterdir", lambda path: (closed if path.name == "masks" else iterdir)(path))
    assert "masks: must be a readable folder (Permission denied); change its permissions" in refused(tmp_path)
    with pytest.raises(DataError, match="must be a readable folder"):
        files_below(tmp_path)

"""Copying a plain folder of sites, or the images of a table, into a federation with a manifest a site."""

import shutil
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path

from harmofl.data.checks.problem import alike, refuse
from harmofl.data.checks.quick_checks import understood
from harmofl.data.checks.unused_files import left_out
from harmofl.data.csv_tables import read_table
from harmofl.data.layout.image_table import Columns, read_rows, unheeded
from harmofl.data.layout.metadata import PATIENT_COLUMNS, metadata_path
from harmofl.data.layout.reader import read_layout, settle
from harmofl.data.layout.site_files import FederationFiles, SiteFiles, demand_free, escaped
from harmofl.data.manifest import FederationInfo, Record, write_info, write_manifest
from harmofl.data.splits import FRACTIONS
from harmofl.errors import ConfigError, DataError
from harmofl.ingest.dicom.dicom_folders import dicom_files, without_dicom
from harmofl.ingest.dicom.dicom_tables import table_without_dicom
from harmofl.ingest.inspection.check_folder import checked_files
from harmofl.types import Progress, Tell
from harmofl.utils.atomic_files import locked, storing


def import_federation(
    source: Path,
    target: Path,
    *,
    name: str | None = None,
    size: tuple[int, int] | None = None,
    channels: int | None = None,
    seed: int = 0,
    fractions: tuple[float, float, float] = FRACTIONS,
    columns: Columns | None = None,
    classes: Sequence[str] = (),
    origin: str = "",
    licence: str = "",
    progress: Progress | None = None,
    warned: Callable[[str], None] | None = None,
    told: Tell = lambda line: None,
) -> FederationInfo:
    """Check a folder or table of images and copy them, files unchanged, into a federation of its own.

    Nothing is at `target` until all of it is.

    Args:
        source: a plain folder of sites, as `open_federation` takes it, or a CSV file with a row an image (see
            `layout.table`), or a list of images as MONAI has it (see `layout.declared`).
            DICOM in it becomes NIfTI and PNG (see `dicom.folders`).
        target: the folder to make; it must not exist.
        name: of the federation; the target's name if not given.
        size: (H, W) written down as the size that images are resized to when opened.
        channels: written down in place of what the files suggest.
        seed: of the patient-level split, if metadata.csv gives none.
        fractions: train, val and test shares of that split.
        columns: what the columns of the table, or of metadata.csv, are called, if not as usual.
        classes: their names in the order of their index, the background first for segmentation; of classes that are
            folders or labels, the order alone.
        origin: where the data came from.
        licence: under which licence.
        progress: told the site, how many images are checked and how many there are.
        warned: told in one line each of what is odd, of files that are left out, and of all errors but the first.
        told: told what was understood of the source, before any image is decoded.

    Returns:
        what was written to federation.toml.

    Raises:
        DataError: if the target exists or is inside the source, or for the first file, label or split that does
            not hold.
        ConfigError: if size, channels, classes or fractions are out of range.
        StorageError: if the target cannot be written.
    """
    demand_free(target, "import to", source)
    _check_columns(source, columns or Columns(), fractions)
    tell = warned or (lambda line: None)
    with _workshop(target) as workshop:
        readable, names = _readable(source, workshop / "converted", target, columns, progress, tell)
        files = settle(read_layout(readable, seed=seed, fractions=fractions, columns=names), size, channels)
        files = replace(files, info=_named(files.info, classes))
        if readable != source and not _tells_patients(source, columns or Columns()):
            files = _by_headers(files)
        told(understood(files))
        found = checked_files(files, progress).problems
        refuse(found, told=tell)
        for problem in alike([*found, *(left_out(readable, files) if readable.is_dir() else ())]):
            tell(f"warning: {problem}")
        name = escaped(name or target.resolve().name)
        origin, licence = escaped(origin), escaped(licence)
        info = replace(files.info, name=name, origin=origin or files.info.origin, licence=licence or files.info.licence)
        info = replace(info, remark="")
        _write(replace(files, info=info), workshop / "written", target)
    return info


def _check_columns(source: Path, columns: Columns, fractions: tuple[float, float, float]) -> None:
    """Refuse to be told what would not be heeded."""
    if source.is_dir() and (columns.image or columns.target or columns.site):
        raise ConfigError(
            f"{source}: a folder needs no columns of sites, images or targets; leave them out, or import a table"
        )
    settled = (source / "federation.toml").is_file()
    if settled and (columns.patient or columns.split or fractions != FRACTIONS):
        raise ConfigError(f"{source}: has manifests that tell patients and splits; leave columns and fractions out")


def _named(info: FederationInfo, classes: Sequence[str]) -> FederationInfo:
    """The federation with the names that the user gives its classes."""
    if not classes:
        return info
    found = ", ".join(info.classes)
    if info.task == "classification" and set(classes) != set(info.classes):
        raise ConfigError(f"classes must be {found} in the order wanted, got {', '.join(classes)}; mend --classes")
    if not len(info.classes) == len(set(classes)) == len(classes):
        raise ConfigError(f"classes must be {len(info.classes)} different names, for {found}, got {', '.join(classes)}")
    return replace(info, classes=tuple(classes), doubt="")


@contextmanager
def _workshop(target: Path) -> Iterator[Path]:
    """An empty hidden folder near the target, gone in the end; what a killed import has left in it goes first."""
    near = next(folder for folder in target.resolve().parents if folder.is_dir())
    folder = near / f".{target.name}.importing"
    with storing(target):
        folder.mkdir(exist_ok=True)
    with locked(folder, "importing to"):
        with storing(target):
            for old in folder.iterdir():
                shutil.rmtree(old)
        try:
            yield folder
        finally:
            shutil.rmtree(folder, ignore_errors=True)


def _readable(
    source: Path,
    copy: Path,
    target: Path,
    columns: Columns | None,
    progress: Progress | None,
    tell: Callable[[str], None],
) -> tuple[Path, Columns | None]:
    """The source itself, or a copy made at `copy` in which no file is DICOM, and the columns to read it with."""
    if source.suffix.lower() == ".json":
        return source, columns
    if source.is_file():
        with storing(target):
            converted = table_without_dicom(source, columns or Columns(), copy, progress)
        if converted:
            for line in unheeded(source, columns or Columns(), patients_told=bool(converted[1])):
                tell(f"warning: {line}")
        return (converted[0], None) if converted else (source, columns)
    found = dicom_files(source)
    if not found:
        return source, columns
    with storing(target):
        for line in without_dicom(source, copy / source.resolve().name, found, progress):
            tell(f"warning: {line}")
    return copy / source.resolve().name, columns


def _tells_patients(source: Path, columns: Columns) -> bool:
    """Whether a table of the user's says whose the images are, and not the headers of DICOM files alone."""
    if source.is_file():
        return any(row.patient for row in read_rows(source, columns))
    table = metadata_path(source)
    return table.is_file() and not {columns.patient, *PATIENT_COLUMNS}.isdisjoint(read_table(table).columns)


def _by_headers(files: FederationFiles) -> FederationFiles:
    """The federation, its split not said to be from a table that the conversion has written."""
    splits = [site.split.replace(f"from {site.table}", "from DICOM headers") for site in files.sites]
    return replace(files, sites=tuple(replace(one, split=s) for one, s in zip(files.sites, splits, strict=True)))


def _write(files: FederationFiles, partial: Path, target: Path) -> None:
    """Write the federation at `partial` and give it its name when all of it is there."""
    with storing(target):
        target.parent.mkdir(parents=True, exist_ok=True)
        partial.mkdir()
        write_info(partial, files.info)
        for site in files.sites:
            _refuse_taken(partial / site.name, site.name)
            _copy_site(site, partial / site.name, masks=files.info.task == "segmentation")
        partial.rename(target)


def _copy_site(site: SiteFiles, folder: Path, *, masks: bool) -> None:
    """Copy a site's images to images/ and its masks to masks/, and write its manifest."""
    records = [_placed(record, masks=masks) for record in site.records]
    copies: dict[str, str] = {}
    for old, new in zip(site.records, records, strict=True):
        pairs = [(old.image, new.image), (old.target, new.target)] if masks else [(old.image, new.image)]
        for source, place in pairs:
            if copies.setdefault(place, source) != source:
                raise DataError(
                    f"{site.name}/{source}: {copies[place]} would be copied to the same {place}; rename one"
                )
    for place, source in copies.items():
        _refuse_taken(folder / place, f"{site.name}/{source}")
        (folder / place).parent.mkdir(parents=True, exist_ok=True)
        shutil.copyfile(site.folder / source, folder / place)
    write_manifest(folder, records)


def _refuse_taken(place: Path, name: str) -> None:
    """Refuse to write over what has just been written, where names that differ in case are one."""
    if place.exists():
        raise DataError(f"{name}: has a name that this file system takes for another's, {place.name}; rename one")


def _placed(record: Record, *, masks: bool) -> Record:
    """Return the record with its image under images/ and its mask under masks/."""
    image = f"images/{record.image.removeprefix('images/')}"
    if not masks:
        return replace(record, image=image)
    inner = record.target.removeprefix("masks/").removeprefix("labels/")
    return replace(record, image=image, target=f"masks/{inner}")

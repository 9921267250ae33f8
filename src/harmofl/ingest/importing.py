"""Import of a plain folder of sites, or of the images of a table, into a federation with a manifest per site."""

import shutil
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path

from harmofl.data.checks.problem import alike, refuse
from harmofl.data.checks.quick_checks import understood
from harmofl.data.checks.unused_files import left_out
from harmofl.data.csv_tables import read_table
from harmofl.data.layout.file_names import escaped
from harmofl.data.layout.image_table import Columns, read_rows, unheeded
from harmofl.data.layout.metadata import PATIENT_COLUMNS, metadata_path
from harmofl.data.layout.reader import read_layout, settle
from harmofl.data.layout.site_files import FederationFiles, SiteFiles, demand_free
from harmofl.data.manifest import FederationInfo, Record, write_info, write_manifest
from harmofl.data.splits import FRACTIONS
from harmofl.errors import ConfigError, DataError
from harmofl.ingest.dicom.dicom_folders import dicom_files, without_dicom
from harmofl.ingest.dicom.dicom_tables import table_without_dicom
from harmofl.ingest.inspection.check_folder import checked_files, kept_whole
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
    volumes: bool = False,
    progress: Progress | None = None,
    warned: Tell = lambda line: None,
    told: Tell = lambda line: None,
) -> FederationInfo:
    """Check a folder or table of images and copy the files, unchanged, into a new federation.

    `target` appears only when the federation is complete.

    Args:
        source: a plain folder of sites, as in `open_federation`, or a CSV file with one row per image (see
            `layout.image_table`), or a MONAI data list (see `layout.declared`).
            DICOM files are converted to NIfTI and PNG (see `dicom.dicom_folders`).
        target: the folder to create; it must not exist.
        name: the name of the federation, by default the target's name.
        size: (H, W) to write into federation.toml, the size to which images are resized when opened.
        channels: channels to write into federation.toml instead of the inferred value.
        seed: seed of the patient-level split if metadata.csv gives no split.
        fractions: train, val and test shares of that split.
        columns: the names of the columns of the table, or of metadata.csv, if they differ from the defaults.
        classes: class names in the order of their index, the background first for segmentation; for classification
            they must be the existing names, in a new order.
        origin: the source of the data.
        licence: the licence of the data.
        volumes: check for training on whole volumes, see `inspection.check_folder.check_federation`.
        progress: called with the site, the number of checked images and the number of all its images.
        warned: called with one line for each warning, unused file, and error except the first.
        told: called with the summary of the source, before any image is decoded.

    Returns:
        the content of federation.toml.

    Raises:
        DataError: if the target exists or is inside the source, or for the first invalid file, label or split.
        ConfigError: if size, channels, classes or fractions are out of range, or an image is not a volume, with
            `volumes`.
        StorageError: if the target cannot be written.
    """
    demand_free(target, "import to", source)
    _check_columns(source, columns or Columns(), fractions)
    with _workshop(target) as workshop:
        readable, names = _readable(source, workshop / "converted", target, columns, progress, warned)
        files = settle(read_layout(readable, seed=seed, fractions=fractions, columns=names), size, channels)
        files = replace(files, info=_named(files.info, classes))
        if readable != source and not _tells_patients(source, columns or Columns()):
            files = _by_headers(files)
        files = kept_whole(files) if volumes else files
        told(understood(files))
        found = checked_files(files, progress).problems
        refuse(found, told=warned)
        for problem in alike([*found, *(left_out(readable, files) if readable.is_dir() else ())]):
            warned(f"warning: {problem}")
        name = escaped(name or target.resolve().name)
        origin, licence = escaped(origin), escaped(licence)
        info = replace(files.info, name=name, origin=origin or files.info.origin, licence=licence or files.info.licence)
        info = replace(info, remark="")
        _write(replace(files, info=info), workshop / "written", target)
    return info


def _check_columns(source: Path, columns: Columns, fractions: tuple[float, float, float]) -> None:
    """Raise ConfigError for columns or fractions that do not apply to the source."""
    if source.is_dir() and (columns.image or columns.target or columns.site):
        raise ConfigError(
            f"{source}: columns of sites, images and targets are only for a table; omit them, or import a table"
        )
    settled = (source / "federation.toml").is_file()
    if settled and (columns.patient or columns.split or fractions != FRACTIONS):
        raise ConfigError(f"{source}: has manifests with patients and splits; omit columns and fractions")


def _named(info: FederationInfo, classes: Sequence[str]) -> FederationInfo:
    """Return the federation's description with the class names given by the user."""
    if not classes:
        return info
    found = ", ".join(info.classes)
    if info.task == "classification" and set(classes) != set(info.classes):
        raise ConfigError(f"classes must be {found} in any order, got {', '.join(classes)}; correct --classes")
    if not len(info.classes) == len(set(classes)) == len(classes):
        raise ConfigError(f"classes must be {len(info.classes)} different names, for {found}, got {', '.join(classes)}")
    return replace(info, classes=tuple(classes), doubt="")


@contextmanager
def _workshop(target: Path) -> Iterator[Path]:
    """Yield an empty hidden folder near the target, removed at the end; leftovers of a killed import are deleted."""
    folder = next(path for path in target.resolve().parents if path.is_dir()) / f".{target.name}.importing"
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
    warned: Tell,
) -> tuple[Path, Columns | None]:
    """Return the source, or a copy at `copy` without DICOM files, and the columns to read it with."""
    if source.suffix.lower() == ".json":
        return source, columns
    if source.is_file():
        with storing(target):
            converted = table_without_dicom(source, columns or Columns(), copy, progress)
        if converted:
            for line in unheeded(source, columns or Columns(), patients_told=bool(converted[1])):
                warned(f"warning: {line}")
        return (converted[0], None) if converted else (source, columns)
    found = dicom_files(source)
    if not found:
        return source, columns
    with storing(target):
        for line in without_dicom(source, copy / source.resolve().name, found, progress):
            warned(f"warning: {line}")
    return copy / source.resolve().name, columns


def _tells_patients(source: Path, columns: Columns) -> bool:
    """Return True if a table of the user gives the patients, and not only the DICOM headers."""
    if source.is_file():
        return any(row.patient for row in read_rows(source, columns))
    table = metadata_path(source)
    return table.is_file() and not {columns.patient, *PATIENT_COLUMNS}.isdisjoint(read_table(table).columns)


def _by_headers(files: FederationFiles) -> FederationFiles:
    """Return the federation with DICOM headers as the source of its split, instead of the converted table."""
    splits = [site.split.replace(f"from {site.table}", "from DICOM headers") for site in files.sites]
    return replace(files, sites=tuple(replace(one, split=s) for one, s in zip(files.sites, splits, strict=True)))


def _write(files: FederationFiles, partial: Path, target: Path) -> None:
    """Write the federation to `partial` and rename it to `target` when it is complete."""
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
    """Raise DataError if a file system that ignores case would overwrite a file just written."""
    if place.exists():
        raise DataError(
            f"{name}: has a name that this file system does not distinguish from another, {place.name}; rename one"
        )


def _placed(record: Record, *, masks: bool) -> Record:
    """Return the record with its image under images/ and its mask under masks/."""
    image = f"images/{record.image.removeprefix('images/')}"
    if not masks:
        return replace(record, image=image)
    inner = record.target.removeprefix("masks/").removeprefix("labels/")
    return replace(record, image=image, target=f"masks/{inner}")

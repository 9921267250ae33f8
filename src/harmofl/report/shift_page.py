"""Page, picture and JSON numbers of `harmofl data shift`."""

from collections.abc import Sequence
from pathlib import Path

from harmofl.analysis.site_shift import Shift
from harmofl.report.amplitudes import on_one_scale, whole_spectrum
from harmofl.report.curves import amplitude_chart, brightness_chart
from harmofl.report.data_page import Grid
from harmofl.report.png_images import data_uri, to_bytes
from harmofl.report.scores import number
from harmofl.report.shift_outcome import shift_numbers, shift_sentences
from harmofl.report.shift_picture import amplitude_lines, brightness_lines, shift_picture
from harmofl.report.templates import template_of
from harmofl.utils.atomic_files import make_folder, strict_json, write_atomic

_SIDE = 132  # pixels


ShiftPictures = tuple[str, str, Sequence[str], Sequence[tuple[str, Sequence[str]]]]
"""Pictures of the page: a title, a note, the column names, and rows of a name and images."""


def write_shift(shift: Shift, folder: Path) -> None:
    """Write shift.html, shift.png and shift.json.

    Raises:
        StorageError: if a file cannot be written.
    """
    make_folder(folder)
    write_atomic(folder / "shift.json", strict_json(shift_numbers(shift), indent=1).encode())
    write_atomic(folder / "shift.png", shift_picture(shift))
    write_atomic(folder / "shift.html", render_shift_page(shift).encode())


def render_shift_page(shift: Shift) -> str:
    """Return the HTML of the page."""
    return template_of("data.html").render(
        title=f"Shift between the sites of {shift.name}",
        kind=f"{shift.task}, {len(shift.sites)} sites, at {shift.size[0]} x {shift.size[1]} pixels",
        outcome=" ".join(shift_sentences(shift)),
        grids=[_probe(shift), _distances(shift), _brightness(shift)],
        charts=[amplitude_chart(amplitude_lines(shift)), brightness_chart(brightness_lines(shift))],
        galleries=[_spectra(shift), _examples(shift)],
        note=(
            "Training images only. The small model is linear on random filters: compare its scores between the rows of "
            "the table; they do not predict those of a trained network. This page shows images; do not take it to a "
            "place where they must not be seen."
        ),
    )


def _probe(shift: Shift) -> Grid:
    rows = []
    for verdict in shift.verdicts:
        pairs = ((verdict.within[site], verdict.elsewhere[site]) for site in shift.sites)
        per_site = [f"{number(within, '.2f')} / {number(elsewhere, '.2f')}" for within, elsewhere in pairs]
        means = [number(v, ".2f") for v in (verdict.site, verdict.mean_within, verdict.mean_elsewhere)]
        rows.append((f"{verdict.treatment.name}: {verdict.treatment.meaning}", *means, *per_site))
    columns = ("normalization", "site", "class, own site", "class, new site", *shift.sites)
    unit = "a pixel" if shift.task == "segmentation" else "an image"
    repeats = len(shift.verdicts[0].repeats)
    title = f"Predictions of a small model from {unit}: balanced accuracy, mean of {repeats} (at each site: own / new)"
    return Grid(title, columns, rows)


def _distances(shift: Shift) -> Grid:
    rows = [
        (site, *(f"{value:.1f}" for value in row), number(shift.halves[site], ".2f"), str(shift.images[site]))
        for site, row in zip(shift.sites, shift.distances, strict=True)
    ]
    columns = ("", *shift.sites, "two halves of it", "images")
    return Grid("Distance of the mean amplitude spectra, dB", columns, rows)


def _brightness(shift: Shift) -> Grid:
    rows = [(site, *(f"{value:.3f}" for value in row)) for site, row in zip(shift.sites, shift.brightness, strict=True)]
    return Grid("Distance of the brightness histograms (earth mover's, of full scale)", ("", *shift.sites), tuple(rows))


def _spectra(shift: Shift) -> ShiftPictures:
    """Return the mean spectra as images on one scale, zero frequency in the middle."""
    whole = {name: whole_spectrum(A.mean(axis=0), shift.size[1]) for name, A in shift.spectra.items()}
    note = "Lighter means larger, on one scale for all; the lowest frequency is in the middle."
    return "Mean amplitude spectra", note, list(whole), [("", on_one_scale(list(whole.values()), _SIDE))]


def _examples(shift: Shift) -> ShiftPictures:
    rows = []
    for site, parts in shift.examples.items():
        for k in range(len(parts[0])):
            rows.append((site if k == 0 else "", [data_uri(to_bytes(part[k], _SIDE)) for part in parts]))
    note = (
        "Some training images of every site, as they are and under each normalization (clipped to the range of values)."
    )
    return "Images before and after", note, [verdict.treatment.name for verdict in shift.verdicts], rows

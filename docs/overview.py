"""Draws docs/overview.png, the picture in the README: python docs/overview.py."""

from pathlib import Path

import numpy as np
import torch
from matplotlib.figure import Figure

from harmofl import amplitude, with_amplitude
from harmofl.ingest.synthetic.federation import draw_sample, draw_style

SITES = 4


def images_of(site: int, count: int = 24) -> torch.Tensor:
    """(count, 3, 96, 96) in [0, 1]: tissue of one synthetic hospital."""
    style = draw_style("cells", seed=0, site=site, shift=1.0)
    drawn = [draw_sample(style, size=96, seed=0, site=site, patient=n, image=0).image for n in range(count)]
    return torch.from_numpy(np.stack(drawn)).permute(0, 3, 1, 2).float() / 255


def main() -> None:
    """Four hospitals' images, their amplitudes, and the same images under the average amplitude."""
    sites = [images_of(site) for site in range(SITES)]
    each = [amplitude(x).mean(dim=0) for x in sites]
    shared = torch.stack(each).mean(dim=0)
    figure = Figure(figsize=(11, 5.6), dpi=110)
    axes = figure.subplots(3, SITES + 1, gridspec_kw={"wspace": 0.08, "hspace": 0.16})
    for column, (x, A) in enumerate(zip(sites, each, strict=True)):
        axes[0, column].set_title(f"hospital {column + 1}", fontsize=11)
        axes[0, column].imshow(x[0].permute(1, 2, 0))
        _show_amplitude(axes[1, column], A)
        axes[2, column].imshow(with_amplitude(x[:1], shared)[0].permute(1, 2, 0).clamp(0, 1))
    _show_amplitude(axes[1, SITES], shared)
    axes[1, SITES].set_title("average, shared once", fontsize=10)
    for axis in axes.flat:
        axis.set_xticks([])
        axis.set_yticks([])
    for row, text in enumerate(("images\n(never leave)", "their amplitude\nspectrum", "one amplitude,\nown phase")):
        axes[row, 0].set_ylabel(text, fontsize=11)
    axes[0, SITES].axis("off")
    axes[2, SITES].axis("off")
    text = "then train at each site,\neach step with the gradient\na little uphill, and average\nthe weights"
    axes[2, SITES].text(0.5, 0.5, text, ha="center", va="center", fontsize=9.5, transform=axes[2, SITES].transAxes)
    figure.savefig(Path(__file__).parent / "overview.png", bbox_inches="tight", facecolor="white")


def _show_amplitude(axis, A: torch.Tensor) -> None:
    full = torch.cat([A, A[..., 1:-1].flip(-1).roll(1, -2).flip(-2)], dim=-1)  # A(-f) = A(f)
    axis.imshow(torch.fft.fftshift(full.mean(dim=0).log1p()), cmap="magma", vmin=0, vmax=8)


if __name__ == "__main__":
    main()

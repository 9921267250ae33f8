"""harmofl-released: HarmoFL as in its authors' code, which replaces only the mean level of each image.

Psi(x) = x - mean(x) + the mean level of the first training batch: the code truncates v to 0, which keeps the amplitude
of the first batch, and replaces only the zero frequency. github.com/med-air/HarmoFL; https://arxiv.org/abs/2112.10775
"""

COMPOSITION = "fedavg+amplitude:band=0.0:decay=0.0+sam"

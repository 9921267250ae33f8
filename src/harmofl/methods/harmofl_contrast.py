"""harmofl-contrast: HarmoFL with the level and contrast of images instead of the amplitude; a variant of ours.

After Jiang, Wang, Dou, "HarmoFL", AAAI 2022, Eq 3-4 and 6-7, https://arxiv.org/abs/2112.10775: the mean and the
standard deviation of each channel of an image become the averages over the sites. Of the variants with one model for
all it has the best mean validation score on the federations of docs/evidence.md.
"""

COMPOSITION = "fedavg+profile:radial_bins=1+sam"

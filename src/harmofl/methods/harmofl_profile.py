"""harmofl-profile: HarmoFL with the radial profile instead of the whole amplitude; a variant of this package.

After Jiang, Wang, Dou, "HarmoFL", AAAI 2022, Eq 3-4, https://arxiv.org/abs/2112.10775. The values have the best
validation scores of three seeds in docs/results/methods.md: half the strength, one filter per site, plain steps.
"""

COMPOSITION = "fedavg+profile:per=site:strength=0.5"

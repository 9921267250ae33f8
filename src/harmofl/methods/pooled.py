"""pooled: train on the images of all sites in one place; a baseline without federated learning.

The upper baseline of McMahan et al. 2017 and of most papers since. https://arxiv.org/abs/1602.05629

A batch holds images of one site, and the sites' batches come in random order: as many steps as all sites take together,
on the same kind of batch as in every other method. Otherwise a network with batch statistics would be trained on the
statistics of a mixture and tested on those of a site.
"""

COMPOSITION = "fedavg"

"""FedASAM: FedSAM with a perturbation in proportion to the size of each weight.

Caldarola, Caputo, Ciccone, "Improving Generalization in Federated Learning by Seeking Flat Minima", ECCV 2022,
Section 4.1. https://arxiv.org/abs/2203.11834
"""

COMPOSITION = "fedavg+asam"

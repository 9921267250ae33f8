"""HarmoFL: one amplitude for the images of all sites, and perturbed local steps.

Jiang, Wang, Dou, "HarmoFL: Harmonizing Local and Global Drifts in Federated Learning on Heterogeneous Medical
Images", AAAI 2022, Algorithm 1. https://arxiv.org/abs/2112.10775

    min_w sum_i p_i f_i(w + delta; Psi(x))                                                    (Eq 1)

Psi gives every image the common amplitude (Eq 2-4, `parts.normalizers.Amplitude`), which the server averages after
round 1 (`common_amplitude`); delta perturbs the weights of each step (Eq 6-7, `parts.steps.SAM`).
"""

COMPOSITION = "fedavg+amplitude+sam"

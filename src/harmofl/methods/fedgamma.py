"""FedGAMMA: SCAFFOLD with perturbed gradients.

w_i <- w_i - eta (grad f_i(w_i + rho g / ||g||_2) - c_i + c), g = grad f_i(w_i) without the correction.

Dai et al., "FedGAMMA: Federated Learning With Global Sharpness-Aware Minimization", IEEE TNNLS 2023, Algorithm 1,
doi:10.1109/TNNLS.2023.3304453; SCAFFOLD: https://arxiv.org/abs/1910.06378
"""

COMPOSITION = "scaffold+sam"

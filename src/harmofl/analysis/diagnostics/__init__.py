"""Diagnostics of HarmoFL's theory during training: drift, dissimilarity, sharpness and the bound of Theorem 3.1.

quantities.py   dissimilarity (Eq 8), cosines of updates, the bound: functions of vectors
curvature.py    the loss rise in the alpha-ball (Eq 6) and the top Hessian eigenvalue
loss_probe.py   the gradients and curvature of every site's loss on a fixed batch
shared_params.py the params that the sites share
records.py      diagnostics.jsonl
measuring.py    one record a round
"""

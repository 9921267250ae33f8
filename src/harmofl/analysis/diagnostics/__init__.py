"""HarmoFL's theory, measured while a model trains: drift, dissimilarity, sharpness and the bound of Theorem 3.1.

quantities.py   drift (Eq 9), dissimilarity (Eq 8), cosines of updates, the bound: from vectors, nothing else
curvature.py    the loss rise in the alpha-ball (Eq 6) and the top Hessian eigenvalue
probe.py        the gradients and curvature of every site's loss on a fixed batch
sharing.py      which params the sites share
records.py      diagnostics.jsonl
measuring.py    a record a round
"""

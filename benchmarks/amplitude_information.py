"""What an image's amplitude spectrum alone tells: the class, and the site.

    python benchmarks/amplitude_information.py --data ../shared/data/bloodcells

Logistic regression on the log amplitude spectrum (64 principal components), without the phase and so without any
picture of the cell. If it tells the classes apart within a site, then replacing the amplitude takes something away from
the diagnosis; if it tells the sites apart, then replacing it takes away a difference between them.
"""

import argparse
from pathlib import Path

import numpy as np
from sklearn.decomposition import PCA
from sklearn.linear_model import LogisticRegression
from sklearn.metrics import balanced_accuracy_score
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler

from harmofl import amplitude, open_federation
from harmofl.data.site import Split


def spectra(split: Split) -> np.ndarray:
    """(N, features): log amplitude of every channel, the lowest 24 frequencies a side."""
    A = amplitude(split.batch(range(len(split))).images).clamp_min(1e-3).log()
    low = np.concatenate([A[:, :, :24, :24], A[:, :, -24:, :24]], axis=2)
    return low.reshape(len(low), -1)


def accuracy(x: np.ndarray, y: np.ndarray, test_x: np.ndarray, test_y: np.ndarray) -> float:
    """Balanced accuracy on the test side."""
    model = make_pipeline(StandardScaler(), PCA(64, random_state=0), LogisticRegression(C=0.1, max_iter=2000))
    return balanced_accuracy_score(test_y, model.fit(x, y).predict(test_x))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, default=Path("../shared/data/bloodcells"), help="the federation")
    sites = open_federation(parser.parse_args().data).sites
    train, test = [spectra(s.train) for s in sites], [spectra(s.test) for s in sites]
    for site, x, z in zip(sites, train, test, strict=True):
        found = accuracy(x, site.train.targets, z, site.test.targets)
        print(f"class from amplitude, {site.name}: balanced accuracy {found:.3f} (chance {1 / len(site.classes):.3f})")
    labels = [np.repeat(np.arange(len(sites)), [len(x) for x in part]) for part in (train, test)]
    found = accuracy(np.concatenate(train), labels[0], np.concatenate(test), labels[1])
    print(f"site from amplitude: balanced accuracy {found:.3f} (chance {1 / len(sites):.3f})")


if __name__ == "__main__":
    main()

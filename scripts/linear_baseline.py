"""The test error of a linear classifier on the photographs that `wn-dqn paper cifar10` trains on.

    python scripts/linear_baseline.py

scikit-learn's LogisticRegression, of whitened pixels for several epsilons of the whitening, and of raw pixels. The best
of three regularizations on the test set stands last: an optimistic baseline.
"""

from __future__ import annotations

import click
from sklearn.linear_model import LogisticRegression
from torch import Tensor

from wn_dqn.paper.cifar10 import Whitening
from wn_dqn.paper.data import load_images

REGULARIZATIONS = (1e-3, 1e-2, 1e-1)
"""inverse strengths of the penalty on the weights"""


@click.command(help=__doc__)
@click.option("--epsilons", default="0.01,0.1,1", show_default=True, help="Of the whitening.")
def main(epsilons: str) -> None:
    images = load_images("cifar10", "photos")
    inputs = {
        f"whitened, epsilon {epsilon}": Whitening(images.train, float(epsilon)) for epsilon in epsilons.split(",")
    }

    def errors(train: Tensor, test: Tensor) -> list[float]:
        x, y = train.flatten(1).numpy(), test.flatten(1).numpy()
        models = (LogisticRegression(C=strength, max_iter=300) for strength in REGULARIZATIONS)
        fitted = (model.fit(x, images.train_labels.numpy()) for model in models)
        return [100.0 * (1.0 - model.score(y, images.test_labels.numpy())) for model in fitted]

    for name, whiten in [*inputs.items(), ("raw", lambda x: x.float() / 255.0)]:
        found = errors(whiten(images.train), whiten(images.test))
        print(f"{name}: {', '.join(f'{error:.1f}' for error in found)}; best {min(found):.1f}", flush=True)


if __name__ == "__main__":
    main()

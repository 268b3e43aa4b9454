"""The transfer family: many small networks, some to train agents on and some to score them on."""

from __future__ import annotations

from reptile_env.tasks.catalogue.spec import TaskSpec
from reptile_env.tasks.transfer.members import MEMBERS, SUITE

_CODE = ("reptile_env.tasks.transfer.task:task", "reptile_env.tasks.transfer.task:train_network")
# name of a set -> what it is, and its licence
_DATA = {
    "digits": ("scikit-learn digits, 1,797 images of 8x8", "CC BY 4.0"),
    "digits-parity": ("scikit-learn digits, odd or even", "CC BY 4.0"),
    "digits-noisy": ("scikit-learn digits with noise", "CC BY 4.0"),
    "digits-pairs": ("pairs of scikit-learn digits, 8x16: the larger one", "CC BY 4.0"),
    "mnist1d": ("MNIST-1D, generated signals of 40 samples", "Apache-2.0"),
    "breast-cancer": ("UCI breast cancer (Wisconsin, diagnostic), 569 x 30", "CC BY 4.0"),
    "clusters": ("synthetic clusters of scikit-learn, 20 features", "BSD-3-Clause"),
    "hastie": ("Gaussian points of Hastie et al., 10 features", "BSD-3-Clause"),
}

SPECS = tuple(
    TaskSpec(name, member.kind, *_DATA[member.data], *_CODE, suite=SUITE, split=member.split) for name, member in MEMBERS.items()
)

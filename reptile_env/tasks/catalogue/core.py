"""Core tasks: data and checkpoints come with packages, a step takes milliseconds."""

from __future__ import annotations

from reptile_env.tasks.catalogue.spec import TaskSpec


def _code(module: str, builder: str = "task", trainer: str = "train_network") -> tuple[str, str]:
    return f"reptile_env.tasks.{module}:{builder}", f"reptile_env.tasks.{module}:{trainer}"


_DIGITS = ("scikit-learn digits, 1,797 images of 8x8", "CC BY 4.0")
_MNIST1D = ("MNIST-1D, 5,000 signals of 40 samples", "Apache-2.0")
_VOWELS = ("Japanese Vowels, 640 utterances of 7 to 29 frames", "CC BY 4.0")
# Test accuracies, as the modules of the tasks tell more fully.
_SVM = {"reported": ".97 support vector machine on the later half of the images (scikit-learn's example)"}
_CONVOLUTIONAL = {"reported": ".94 convolutional network, trained on 4,000 signals (Greydanus & Kobak, ICML 2024)"}
_GRU = {"reported": ".91 GRU, trained on 4,000 signals (Greydanus & Kobak, ICML 2024)"}
_MARKOV = {"reported": ".962 hidden Markov models, .941 the authors' own (Kudo et al., 1999)"}

SPECS = (
    TaskSpec("digits-cnn", "cnn", *_DIGITS, *_code("digits"), **_SVM),
    TaskSpec("digits-mlp", "mlp", *_DIGITS, *_code("digits"), **_SVM),
    TaskSpec("digits-resnet", "resnet", *_DIGITS, *_code("digits"), **_SVM),
    TaskSpec("digits-mobilenet", "mobilenet", *_DIGITS, *_code("digits"), **_SVM),
    TaskSpec("digits-vae", "vae", *_DIGITS, *_code("digits_generative", "vae_task", "train_vae")),
    TaskSpec("digits-gan", "gan", *_DIGITS, *_code("digits_generative", "gan_task", "train_gan")),
    TaskSpec("mnist1d-cnn", "cnn-1d", *_MNIST1D, *_code("mnist1d"), **_CONVOLUTIONAL),
    TaskSpec("mnist1d-lstm", "lstm", *_MNIST1D, *_code("mnist1d")),
    TaskSpec("mnist1d-gru", "gru", *_MNIST1D, *_code("mnist1d"), **_GRU),
    TaskSpec("mnist1d-transformer", "transformer", *_MNIST1D, *_code("mnist1d")),
    TaskSpec("vowels-rnn", "rnn", *_VOWELS, *_code("vowels"), **_MARKOV),
)

"""Real tasks on images: data are read from the data folder or downloaded, see `reptile_env.tasks.download`."""

from __future__ import annotations

from reptile_env.tasks.catalogue.spec import TaskSpec

_FASHION = ("Fashion-MNIST, 70,000 images of 28x28", "MIT")
_FASHION_CODE = ("reptile_env.tasks.fashion:task", "reptile_env.tasks.fashion:train_network")
_MNIST = ("MNIST, 70,000 images of 28x28", "data CC BY-SA 3.0, weights MIT")
_CIFAR = ("CIFAR-10, 60,000 images of 32x32", "data as published, weights BSD-3-Clause")
_CIFAR_CODE = "reptile_env.tasks.cifar:task"
# Test accuracies.
_RESNET18 = ".949 ResNet-18, many times as large (the data set's list of results)"
_MOBILENET = ".950 MobileNet, many times as large (the data set's list of results)"
_SAME = "this network (its publisher)"
_VAE = "103.2 this network, latent variables drawn; the task takes their mean (its publisher)"

SPECS = (
    TaskSpec("fashion-resnet20", "resnet", *_FASHION, *_FASHION_CODE, suite="real", reported=_RESNET18),
    TaskSpec("fashion-mobilenetv2", "mobilenet", *_FASHION, *_FASHION_CODE, suite="real", reported=_MOBILENET),
    TaskSpec("mnist-lenet5", "lenet", *_MNIST, "reptile_env.tasks.mnist:lenet5_task", suite="real", reported=f".991 {_SAME}"),
    TaskSpec("mnist-gan", "gan", *_MNIST, "reptile_env.tasks.mnist:gan_task", suite="real"),
    TaskSpec("mnist-vae", "vae", *_MNIST, "reptile_env.tasks.mnist:vae_task", suite="real", reported=_VAE),
    TaskSpec("cifar10-resnet20", "resnet", *_CIFAR, _CIFAR_CODE, suite="real", reported=f".926 {_SAME}"),
    TaskSpec("cifar10-resnet56", "resnet", *_CIFAR, _CIFAR_CODE, suite="real", reported=f".944 {_SAME}"),
    TaskSpec("cifar10-mobilenetv2", "mobilenet", *_CIFAR, _CIFAR_CODE, suite="real", reported=f".938 {_SAME}"),
)

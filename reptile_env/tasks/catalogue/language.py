"""Speech and text: data that is read from the data folder, or downloaded there."""

from __future__ import annotations

from reptile_env.tasks.catalogue.spec import TaskSpec

_DIGITS = ("Free Spoken Digit Dataset, 3,000 recordings of 6 speakers", "CC BY-SA 4.0")
_SPEECH = ("reptile_env.tasks.speech:task", "reptile_env.tasks.speech:train_network")
_TREC = ("TREC, 5,952 questions of 6 classes", "academic use")
_TREC_CODE = ("reptile_env.tasks.trec:task", "reptile_env.tasks.trec:train_network")
_STSB = ("STS benchmark, 8,628 pairs of sentences", "data CC BY-SA 4.0, weights Apache 2.0")
_SPOKEN = ".993 convolutional network (Ahmed, GLaSS-CNN, 2025)"
_COMMANDS = ".960 this network on the 35 words it was trained for (its publisher)"
_WORDS = ".912 convolutions on words learned from these questions alone (Kim, EMNLP 2014)"
_MTEB = ".820 this network (MTEB: Muennighoff et al., EACL 2023)"

SPECS = (
    TaskSpec("fsdd-cnn", "cnn", *_DIGITS, *_SPEECH, suite="real", reported=_SPOKEN),
    TaskSpec("fsdd-lstm", "lstm", *_DIGITS, *_SPEECH, suite="real", reported=_SPOKEN),
    TaskSpec(
        "fsdd-bcresnet",
        "cnn",
        _DIGITS[0],
        "data CC BY-SA 4.0, weights MIT",
        "reptile_env.tasks.bcresnet:task",
        suite="real",
        reported=_COMMANDS,
    ),
    TaskSpec("trec-transformer", "transformer", *_TREC, *_TREC_CODE, suite="real", reported=_WORDS),
    TaskSpec("minilm-stsb", "transformer", *_STSB, "reptile_env.tasks.sts:task", suite="real", reported=_MTEB),
)

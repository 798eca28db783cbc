"""The inputs and the classes that each row of MODELS was made for."""

from __future__ import annotations

import fnmatch

_MNIST, _CIFAR, _IMAGENET, _TEXT = ((28, 28, 1), 10), ((32, 32, 3), 10), ((224, 224, 3), 1000), ((256,), 65)
# What a model was made for: the first pattern that fits its name; images of CIFAR-10 where none does. The text is
# tiny Shakespeare, 256 of its 65 characters.
NATIVE = {
  "*cifar*": _CIFAR, "resnet": _CIFAR, "vit": _CIFAR, "*mnist*": _MNIST, "lenet*": _MNIST, "mlp": _MNIST,
  "resnet20": _CIFAR, "resnet32": _CIFAR, "resnet44": _CIFAR, "resnet56": _CIFAR, "resnet110": _CIFAR,
  "simplenet_5m_*": _IMAGENET, "simplenet_9m_*": _IMAGENET, "simplenet_small_*": _IMAGENET,
  "*_fcn": _IMAGENET, "resnet*": _IMAGENET, "convnet*": _IMAGENET, "vanillanet*": _IMAGENET,
  "vit*": _IMAGENET, "deit*": _IMAGENET, "*decoder*": _TEXT, "rnn*": _TEXT, "lstm*": _TEXT, "gru*": _TEXT,
}


def native(name: str) -> tuple[tuple[int, ...], int]:
  """Returns the shape of one input and the number of classes that a row of MODELS was made for."""
  return next((made_for for pattern, made_for in NATIVE.items() if fnmatch.fnmatch(name, pattern)), _CIFAR)

"""Data: sets by name as arrays, noise on labels, splits, order, augmentation and normalization."""

from lib.data.arrays import Dataset, Split, padded_batches
from lib.data.augment import AUGMENTATIONS
from lib.data.batches import Preprocess, input_shape, preprocess
from lib.data.catalogue import DATASETS, load
from lib.data.label_noise import LABEL_NOISE
from lib.data.normalize import NORMALIZATIONS
from lib.data.order import epoch_order_index

__all__ = [
  "AUGMENTATIONS", "DATASETS", "LABEL_NOISE", "NORMALIZATIONS", "Dataset", "Preprocess", "Split",
  "epoch_order_index", "input_shape", "load", "padded_batches", "preprocess",
]

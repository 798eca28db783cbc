"""Data: sets by name as arrays, noise on labels, splits, order, augmentation and normalization."""

from nurture.data.arrays import Dataset, Split, padded_batches
from nurture.data.augment import AUGMENTATIONS
from nurture.data.batches import Preprocess, input_shape, preprocess
from nurture.data.catalogue import DATASETS, load
from nurture.data.label_noise import LABEL_NOISE
from nurture.data.normalize import NORMALIZATIONS
from nurture.data.order import epoch_order_index

__all__ = [
  "AUGMENTATIONS", "DATASETS", "LABEL_NOISE", "NORMALIZATIONS", "Dataset", "Preprocess", "Split",
  "epoch_order_index", "input_shape", "load", "padded_batches", "preprocess",
]

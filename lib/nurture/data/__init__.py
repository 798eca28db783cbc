"""Data: sets by name as arrays, noise on labels, splits, order, augmentation and normalization."""

from nurture.data.arrays import Dataset, Split, padded_batches
from nurture.data.augment import AUGMENTATIONS, mixed_targets
from nurture.data.batches import Fields, Preprocess, device_fields, gather, preprocess
from nurture.data.catalogue import DATASETS, SECTION, Reader, load
from nurture.data.label_noise import LABEL_NOISE
from nurture.data.normalize import NORMALIZATIONS
from nurture.data.order import epoch_order_index
from nurture.data.tasks import TASKS, Classification, Generation, Pairs, PerPosition, Regression

__all__ = [
  "AUGMENTATIONS", "DATASETS", "LABEL_NOISE", "NORMALIZATIONS", "SECTION", "TASKS", "Classification", "Dataset",
  "Fields", "Generation", "Pairs", "PerPosition", "Preprocess", "Reader", "Regression", "Split", "device_fields",
  "epoch_order_index", "gather", "load", "mixed_targets", "padded_batches", "preprocess",
]

"""Data sets: the items that every arm answers, from a file or from Python."""

from steering_ab.datasets.dataset import FEWEST_ITEMS, Dataset, Fault, dataset_of
from steering_ab.datasets.item import Item
from steering_ab.datasets.reading import read_dataset

__all__ = ["FEWEST_ITEMS", "Dataset", "Fault", "Item", "dataset_of", "read_dataset"]

"""Data: tables, pictures with drawn regions, planted confounders, splits and a catalogue of named data sets.

Importing this loads none of pandas, scikit-learn, Pillow and pyarrow; each is imported where it is first used.
"""

from rightly.data.catalogue import FrameData, available, load, load_arrays, load_frame
from rightly.data.cifar import cifar10_images
from rightly.data.columns import Column
from rightly.data.confounders import DecoyDigits, DecoyPart, decoy_digits, decoy_mnist, plant_decoy
from rightly.data.encoding import TableEncoder
from rightly.data.entries import ENTRIES, Entry
from rightly.data.images import Images, read_images
from rightly.data.nhanes import nhanes_encoder, nhanes_mortality
from rightly.data.nhefs import nhefs_mortality
from rightly.data.reading import Reading, read_frame
from rightly.data.splits import split_indices
from rightly.data.tables import Table, read_table, table_from_frame

__all__ = [
    "ENTRIES",
    "Column",
    "DecoyDigits",
    "DecoyPart",
    "Entry",
    "FrameData",
    "Images",
    "Reading",
    "Table",
    "TableEncoder",
    "available",
    "cifar10_images",
    "decoy_digits",
    "decoy_mnist",
    "load",
    "load_arrays",
    "load_frame",
    "nhanes_encoder",
    "nhanes_mortality",
    "nhefs_mortality",
    "plant_decoy",
    "read_frame",
    "read_images",
    "read_table",
    "split_indices",
    "table_from_frame",
]

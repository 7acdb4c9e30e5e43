"""Data: tables, pictures with drawn regions, planted confounders, splits and a catalogue of named data sets.

Importing this loads none of pandas, scikit-learn, Pillow and pyarrow; each is imported where it is first used.
"""

from rightly.data.ambiguous import TwoRules, confounded_squares, toy_colors, two_quadrants
from rightly.data.augment import Moved, moved
from rightly.data.boxes import box_masks
from rightly.data.catalogue import FrameData, available, load, load_arrays, load_frame
from rightly.data.cifar import cifar10_images
from rightly.data.columns import Column
from rightly.data.confounders import DecoyDigits, DecoyPart, decoy_digits, decoy_mnist, plant_decoy
from rightly.data.drug_response import (
    DrugExamples,
    DrugResponse,
    DrugSplit,
    gdsc_drug_response,
    plant_drug_response,
    read_drug_response,
)
from rightly.data.encoding import TableEncoder
from rightly.data.entries import ENTRIES, Entry
from rightly.data.expression import ExpressionEncoder, correct_batches, fpkm
from rightly.data.folder import PictureFolder, picture_folders
from rightly.data.genes import GeneGraph, gene_graph, read_gene_graph, read_gene_sets
from rightly.data.images import Images, read_images
from rightly.data.iris_cancer import IrisCancer, iris_cancer
from rightly.data.isic import read_isic
from rightly.data.labels import known_labels
from rightly.data.lensing import lognormal_maps
from rightly.data.linear import LinearData, corrgroups60, independentlinear60
from rightly.data.newsgroups import Newsgroups, Posts, newsgroups
from rightly.data.nhanes import nhanes_encoder, nhanes_mortality
from rightly.data.nhefs import nhefs_mortality
from rightly.data.noise import NOISES, gaussian_noise, salt_and_pepper_noise
from rightly.data.notmnist import read_notmnist
from rightly.data.reading import Reading, read_frame
from rightly.data.sentiment import Sentences, SentimentTreebank, sentiment_treebank
from rightly.data.splits import split_indices
from rightly.data.tables import Table, read_table, table_from_frame
from rightly.data.vocabulary import Vocabulary

__all__ = [
    "ENTRIES",
    "NOISES",
    "Column",
    "DecoyDigits",
    "DecoyPart",
    "DrugExamples",
    "DrugResponse",
    "DrugSplit",
    "Entry",
    "ExpressionEncoder",
    "FrameData",
    "GeneGraph",
    "Images",
    "IrisCancer",
    "LinearData",
    "Moved",
    "Newsgroups",
    "PictureFolder",
    "Posts",
    "Reading",
    "Sentences",
    "SentimentTreebank",
    "Table",
    "TableEncoder",
    "TwoRules",
    "Vocabulary",
    "available",
    "box_masks",
    "cifar10_images",
    "confounded_squares",
    "correct_batches",
    "corrgroups60",
    "decoy_digits",
    "decoy_mnist",
    "fpkm",
    "gaussian_noise",
    "gdsc_drug_response",
    "gene_graph",
    "independentlinear60",
    "iris_cancer",
    "known_labels",
    "load",
    "load_arrays",
    "load_frame",
    "lognormal_maps",
    "moved",
    "newsgroups",
    "nhanes_encoder",
    "nhanes_mortality",
    "nhefs_mortality",
    "picture_folders",
    "plant_decoy",
    "plant_drug_response",
    "read_drug_response",
    "read_frame",
    "read_gene_graph",
    "read_gene_sets",
    "read_images",
    "read_isic",
    "read_notmnist",
    "read_table",
    "salt_and_pepper_noise",
    "sentiment_treebank",
    "split_indices",
    "table_from_frame",
    "toy_colors",
    "two_quadrants",
]

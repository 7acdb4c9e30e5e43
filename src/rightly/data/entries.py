"""The catalogue's entries: every data set that can be asked for by name. Data only; ``catalogue.py`` loads them."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal


@dataclass(frozen=True)
class Entry:
    """One data set.

    Attributes:
        name: what ``load`` is asked for.
        file: its file name in a data folder and in the cache; empty if it only comes from a package.
        kind: ``npz`` (arrays by name) or ``csv`` (a table, gzipped).
        sha256: digest of that file; None if it only comes from a package.
        title: what it holds.
        licence: terms of use, or "not stated" where its source states none.
        source: who made it, or where to get it.
        url: address that the official files can be downloaded from, or None.
        package: an installed package that carries it, or None.
        embedded: whether it ships inside rightly.
    """

    name: str
    file: str
    kind: Literal["npz", "csv"]
    sha256: str | None
    title: str
    licence: str
    source: str
    url: str | None = None
    package: str | None = None
    embedded: bool = False


_ENTRIES = [
    Entry(
        "nhefs",
        "nhefs.csv.gz",
        "csv",
        "f3a8fe2de539b977a90605892d2c1af6dd24c3c4bfe6adebe37d9b250c55c261",
        "NHANES I follow-up: 1,629 smokers x 67 columns, 318 deaths by 1992",
        "MIT (causaldata); the study is in the public domain",
        "causaldata 0.1.5, after the National Center for Health Statistics",
        embedded=True,
    ),
    Entry(
        "digits",
        "",
        "npz",
        None,
        "1,797 handwritten digits, 8 x 8, values 0 to 16 (x uint8, y)",
        "BSD-3-Clause (scikit-learn)",
        "scikit-learn load_digits, after UCI optical recognition of handwritten digits",
        package="sklearn",
    ),
    Entry(
        "mnist",
        "mnist_full.npz",
        "npz",
        "fa8bf788861f23aae014846d174d98a490151a58f4630416db261a8c2f3f8f8c",
        "70,000 handwritten digits, 28 x 28 uint8, with the official split",
        "CC BY-SA 3.0",
        "LeCun, Cortes and Burges",
        url="https://ossci-datasets.s3.amazonaws.com/mnist/",
    ),
    Entry(
        "nhanes1_shap_subset",
        "nhanes1_shap_subset.csv.gz",
        "csv",
        "5a81d0b9ff380b7ca07b20089554baf0e7c2a9fa931865f12979ccfd3c71dfcf",
        "NHANES I: 9,932 people x 18 measurements, years followed and death",
        "public domain (study); MIT (extract)",
        "National Center for Health Statistics, as in the package shap",
    ),
    Entry(
        "cifar10_full_jpeg",
        "cifar10_full_jpeg.npz",
        "npz",
        "dc74ac445f08634794ab15e4f3a8a7d19f9ea434e1e09cd06d599c35d3031e54",
        "CIFAR-10 as JPEG scans (a lossy copy, ordered by class): 50,000 + 10,000 pictures",
        "not stated",
        "Krizhevsky 2009, re-encoded",
    ),
    Entry(
        "cifar10_10k_2k_jpeg",
        "cifar10_10k_2k_jpeg.npz",
        "npz",
        "096fa015c5ff247f30d8a95e50636ad08c733fae5a19b3a83e9bb8c7b6c8fe1f",
        "CIFAR-10 as JPEG scans (a lossy copy, ordered by class): 10,000 + 2,000 pictures, balanced",
        "not stated",
        "Krizhevsky 2009, re-encoded",
    ),
    Entry(
        "cifar10_resnet20",
        "cifar10_resnet20-12fca82f.npz",
        "npz",
        "7db2ed048755c815689e055b0e68e2d53db7f9f6e0f9b3bc9b6f837ab168774e",
        "weights of a ResNet-20 trained on CIFAR-10",
        "BSD-2-Clause",
        "akamaster/pytorch_resnet_cifar10",
    ),
    Entry(
        "compas_two_years",
        "compas_two_years.csv.gz",
        "csv",
        "934c6a4f8ca6a0b97f1e4a2230ae49f19ceb5add0a72fac73a95a6f8b041c12b",
        "COMPAS: 7,214 defendants x 19 columns, recidivism within two years",
        "not stated",
        "ProPublica, compas-analysis",
    ),
    Entry(
        "gdsc_methylation_ic50",
        "gdsc_methylation_ic50.npz",
        "npz",
        "a2a7903bfd70f0f739040bfc5ef2738fc7636c54a68e54c579f6ca6605af8649",
        "drug response: methylation of 581 genes in 561 cell lines, ln IC50 of 266 drugs, gene graph",
        "see the source's terms",
        "Genomics of Drug Sensitivity in Cancer",
    ),
    Entry(
        "leukemia_all_vs_aml",
        "leukemia_all_vs_aml.npz",
        "npz",
        "f29c4e26ef6e6a299af7f075929c59177c93fe8801147bafb19d00599cb35275",
        "leukaemia: expression of 9,033 genes in 48 samples, ALL or AML, gene graph",
        "not stated",
        "published expression data; which study is not recorded",
    ),
    Entry(
        "newsgroups_atheism_christian",
        "newsgroups_atheism_christian.csv.gz",
        "csv",
        "ace1c376c8a31a8861187cd05dc4218c3e3c2dd03b7b614cc96a1d65d558bb67",
        "20 Newsgroups: 1,796 posts of two groups, with headers, split by date",
        "not stated",
        "Lang 1995, the by-date version",
    ),
    Entry(
        "sst_sentences",
        "sst_sentences.csv.gz",
        "csv",
        "fe359ef0b9c2aabc8e9c8bda659642bbade202e0be4af67dcc1713e848cfd302",
        "Stanford Sentiment Treebank: 11,855 sentences in five grades",
        "not stated",
        "Socher et al. 2013",
    ),
    Entry(
        "sst_train_phrases",
        "sst_train_phrases.csv.gz",
        "csv",
        "5d9beca0b80336c45b81bb81969476f189645be489bdd982a926ecbfe8ba214e",
        "Stanford Sentiment Treebank: 159,274 labelled phrases of the training part",
        "not stated",
        "Socher et al. 2013",
    ),
    Entry(
        "sentence_polarity",
        "sentence_polarity.csv.gz",
        "csv",
        "c0d3915ba6618ac6b8bae744c46c804a60a5e7bc28531ea29b405a09b8e7a43c",
        "10,662 sentences of film reviews, positive or negative",
        "not stated",
        "Pang and Lee 2005",
    ),
    Entry(
        "glove6b_50d_subset",
        "glove6b_50d_subset_fp16.npz",
        "npz",
        "abc178a33f946ba31dc7c2b164c48db0bf3b6feb9d8644213a98937dd25577b3",
        "GloVe word vectors: 26,621 words x 50, half precision (words: one text, a word a line)",
        "PDDL 1.0",
        "Pennington, Socher and Manning 2014",
    ),
    Entry(
        "ecg5000_train",
        "ecg5000_train_500x140.npz",
        "npz",
        "c7981de7ce1dc1277bab5bbd119eac91f2e0ee104ecf7e8b37238844593459f8",
        "ECG5000: 500 heart beats x 140 samples, five classes",
        "not stated",
        "UCR time series archive, after PhysioNet",
    ),
    Entry(
        "mitbih100_beats",
        "mitbih100_beats.npz",
        "npz",
        "32a05b7550f31bbb600f762ac7f2ac6dc6fe1f2a49021983e8f01a0e2b058e9c",
        "MIT-BIH record 100: 2,271 heart beats x 256 samples",
        "ODC-BY 1.0",
        "PhysioNet, MIT-BIH arrhythmia database",
    ),
    Entry(
        "ucr_small",
        "ucr_small.npz",
        "npz",
        "0e1fd211afed7f75972ac81be4682a09d10caa1205147f46ee503160d44b4c9a",
        "five small series sets: ItalyPowerDemand, GunPoint, ArrowHead, OSULeaf, Trace",
        "not stated",
        "UCR time series archive",
    ),
    Entry(
        "lognormal_kappa_cls",
        "lognormal_kappa_cls.npz",
        "npz",
        "2c7eb3d2f8e315fc910c6b9ddc58625973494bf802c51d7b000f8714308caa0d",
        "spectra of cosmic convergence for 25 cosmologies",
        "MIT (made for rightly)",
        "computed with camb",
    ),
]

#: name -> entry, in the order of the reference page
ENTRIES = {entry.name: entry for entry in _ENTRIES}

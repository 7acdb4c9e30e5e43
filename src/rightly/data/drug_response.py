"""Drug response of patients or cell lines, with their genes and a gene graph: GDSC, a user's folder, or planted.

Source: Erion et al., Nature Machine Intelligence 2021, methods, "Biological experiments" (Beat AML and HumanBase, which
cannot be distributed; ``read_drug_response`` takes a user's copy).
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import torch
from torch import Tensor

from rightly.core.checks import check_count
from rightly.core.errors import DataError
from rightly.core.extras import require
from rightly.data.expression import ExpressionEncoder, correct_batches, fpkm
from rightly.data.genes import GeneGraph, gene_graph, read_gene_graph, read_gene_sets
from rightly.data.noted import note_file
from rightly.data.splits import split_indices

if TYPE_CHECKING:
    from pandas import DataFrame

LAYOUT = """\
expression.csv     first column the patient, then a column a gene
response.csv       columns patient, drug and response (ln IC50), a measurement a line
graph.tsv          gene, gene and weight, an edge a line
and if there are:
gene_lengths.csv   columns gene and length in bases: expression.csv then holds read counts, FPKM otherwise
batches.csv        columns patient and batch
coding_genes.txt   protein-coding genes, one a line
known_genes.txt    genes known to matter, one a line
gene_sets.gmt      pathways: name, description and genes, apart by tabs"""


@dataclass(frozen=True)
class DrugResponse:
    """P patients (or cell lines) with G genes, and how D drugs act on them.

    Attributes:
        expression: (P, G); ``log2`` says whether logarithms are still to be taken (see ``ExpressionEncoder``).
        genes, patients, drugs: names.
        response: (P, D), such as ln IC50; NaN where a drug was not tried.
        graph: over the genes.
        log2: True for FPKM.
        batches: (P,) names; empty where there is one batch.
        coding: protein-coding genes; None where all are taken.
        known: genes known to matter; may be empty.
        gene_sets: pathways; may be empty.
    """

    expression: np.ndarray
    genes: tuple[str, ...]
    patients: tuple[str, ...]
    drugs: tuple[str, ...]
    response: np.ndarray
    graph: GeneGraph
    log2: bool = False
    batches: tuple[str, ...] = ()
    coding: frozenset[str] | None = None
    known: tuple[str, ...] = ()
    gene_sets: dict[str, tuple[str, ...]] = field(default_factory=dict)

    def split(self, seed: int, fractions: tuple[float, float, float] = (0.64, 0.16, 0.2)) -> DrugSplit:
        """Training, validation and test examples; no patient is in two of them.

        An example is a patient and a drug: the patient's genes, then the drug, one-hot. Genes are chosen and
        standardised by the training patients (``ExpressionEncoder``), then corrected for batches. The one-hot
        features are scaled to the size of a standardised gene: left at 0 and 1, a network learns patients by heart
        before it learns drugs. Responses are standardised by the training examples.

        Raises:
            DataError: the training patients have no responses, or all the same.
        """
        parts = split_indices(len(self.patients), fractions=fractions, seed=seed)
        encoder = ExpressionEncoder(log2=self.log2, coding=self.coding, most_zeros=0.7 if self.log2 else 1.0)
        encoder.fit(self.expression[parts[0]], self.genes)
        genes: np.ndarray = encoder.transform(self.expression)
        if self.batches:
            genes = correct_batches(genes, self.batches)
        drugs = np.eye(len(self.drugs)) * len(self.drugs) ** 0.5
        mean, scale = _scale(self.response[parts[0]])
        examples = []
        for rows in parts:
            at, drug = np.nonzero(~np.isnan(self.response[rows]))
            inputs = np.concatenate([genes[rows[at]], drugs[drug]], 1)
            labels = (self.response[rows[at], drug] - mean) / scale
            tensors = torch.from_numpy(inputs).float(), torch.from_numpy(labels).float()[:, None]
            examples.append(DrugExamples(*tensors, rows[at], drug))
        train, validation, test = examples
        return DrugSplit(train, validation, test, self.graph.among(encoder.genes))


@dataclass(frozen=True)
class DrugExamples:
    """N examples: ``inputs`` (N, genes + drugs), ``labels`` (N, 1), and which patient and drug each is."""

    inputs: Tensor
    labels: Tensor
    patients: np.ndarray
    drugs: np.ndarray


@dataclass(frozen=True)
class DrugSplit:
    """Three parts, and the graph over the genes that come first among the features."""

    train: DrugExamples
    validation: DrugExamples
    test: DrugExamples
    graph: GeneGraph


def gdsc_drug_response(arrays: Mapping[str, np.ndarray]) -> DrugResponse:
    """GDSC: methylation of 581 genes in 561 cell lines, ln IC50 of 266 drugs and a gene graph.

    Args:
        arrays: ``load_arrays("gdsc_methylation_ic50")``.

    Raises:
        DataError: other arrays.
    """
    wanted = ("x", "genes", "cell_line", "drug", "ln_ic50", "edges")
    if absent := [name for name in wanted if name not in arrays]:
        raise DataError(
            "this is not the GDSC data set",
            expected=", ".join(absent),
            got=", ".join(arrays),
            mend="load it by name: rt.data.load_arrays('gdsc_methylation_ic50')",
        )
    genes = tuple(map(str, arrays["genes"]))
    return DrugResponse(
        arrays["x"],
        genes,
        tuple(map(str, arrays["cell_line"])),
        tuple(map(str, arrays["drug"])),
        arrays["ln_ic50"],
        gene_graph(genes, arrays["edges"]),
    )


def read_drug_response(folder: str | Path) -> DrugResponse:
    """A user's own data, such as Beat AML with a HumanBase graph, from a folder of text files.

    The files are those of ``LAYOUT``, which the error names where one is absent. Patients without
    expression or without a response are left out; of repeated measurements the mean counts.

    Raises:
        DataError: a file is absent or does not have this form.
        MissingExtraError: pandas is not installed.
    """
    place = Path(folder)
    needed = ("expression.csv", "response.csv", "graph.tsv")
    if absent := [name for name in needed if not (place / name).is_file()]:
        raise DataError(
            f"{place} does not hold a drug-response data set",
            expected="a folder with\n" + LAYOUT,
            got=f"no {', '.join(absent)}",
            mend="name the files so, or pass another --data-dir",
        )
    for name in ("expression.csv", "response.csv", "gene_lengths.csv", "batches.csv", "coding_genes.txt"):
        note_file(name, place / name)
    expression = _matrix(place / "expression.csv")
    response = _columns(place / "response.csv", ("patient", "drug"), "response")
    table = response.pivot_table(index="patient", columns="drug", values="response", aggfunc="mean")
    patients = [name for name in expression.index if name in table.index]
    if not patients:
        raise DataError(
            "no patient has both expression and a response",
            expected=f"names such as {', '.join(expression.index[:3])}",
            got=", ".join(table.index[:3]),
            mend="name patients alike in expression.csv and response.csv",
        )
    expression, table = expression.loc[patients], table.loc[patients].dropna(axis=1, how="all")
    values, genes = expression.to_numpy(np.float64), tuple(expression.columns)
    if (place / "gene_lengths.csv").is_file():
        lengths = _columns(place / "gene_lengths.csv", ("gene",), "length").set_index("gene")["length"]
        values = fpkm(values, _every(lengths, genes, "length").astype(np.float64))
    batches: tuple[str, ...] = ()
    if (place / "batches.csv").is_file():
        named = _columns(place / "batches.csv", ("patient", "batch")).set_index("patient")["batch"]
        batches = tuple(_every(named, tuple(patients), "batch"))
    coding = _names(place / "coding_genes.txt")
    sets = place / "gene_sets.gmt"
    return DrugResponse(
        values,
        genes,
        tuple(patients),
        tuple(table.columns),
        table.to_numpy(np.float64),
        read_gene_graph(place / "graph.tsv", genes),
        log2=True,
        batches=batches,
        coding=frozenset(coding) if coding else None,
        known=_names(place / "known_genes.txt"),
        gene_sets=read_gene_sets(sets) if sets.is_file() else {},
    )


def plant_drug_response(
    *,
    patients: int = 200,
    modules: int = 30,
    genes: int = 10,
    active: int = 4,
    drugs: int = 20,
    noise: float = 1.0,
    seed: int = 0,
) -> DrugResponse:
    """A data set in which the graph tells the truth: genes of one pathway act together.

    Each pathway is a module of ``genes`` genes; two of its genes are linked with chance 0.6, and a tenth as many edges
    join any two genes. Genes are independent and normal. The activity of a pathway is the sum of its genes over the
    root of their number; the ``active`` first ones decide: drug d answers with its own mean, N(0, 1.5^2), and
    sum over pathways of s_dm times the activity, s_dm = c_m (1 + N(0, 0.5^2)) and c_m = 1 or -1 by turns.

    Args:
        noise: standard deviation of what is added to every response, of which 70 % are kept.
        seed: of the draws.

    Returns:
        ``known`` are the genes of the active pathways, ``gene_sets`` all pathways.
    """
    for name, value in (("patients", patients), ("modules", modules), ("drugs", drugs)):
        check_count(name, value)
    check_count("genes", genes, least=2)
    if check_count("active", active) > modules:
        raise DataError("there are fewer pathways", expected=f"1 to {modules}", got=active, mend="let fewer act")
    draws = np.random.default_rng(seed)
    names = tuple(f"M{m:02}G{g:02}" for m in range(modules) for g in range(genes))
    inside = [
        (m * genes + i, m * genes + j)
        for m in range(modules)
        for i in range(genes)
        for j in range(i + 1, genes)
        if draws.random() < 0.6
    ]
    stray = draws.integers(len(names), size=(len(inside) // 10, 2))
    expression = draws.normal(size=(patients, len(names)))
    activity = expression.reshape(patients, modules, genes).sum(2)[:, :active] / np.sqrt(genes)
    strength = np.where(np.arange(active) % 2, -1.0, 1.0) * (1 + 0.5 * draws.normal(size=(drugs, active)))
    response = activity @ strength.T + 1.5 * draws.normal(size=drugs) + noise * draws.normal(size=(patients, drugs))
    response[draws.random(response.shape) > 0.7] = np.nan
    members = {f"pathway {m}": names[m * genes : (m + 1) * genes] for m in range(modules)}
    return DrugResponse(
        expression,
        names,
        tuple(f"P{p:03}" for p in range(patients)),
        tuple(f"D{d:02}" for d in range(drugs)),
        response,
        gene_graph(names, np.concatenate([np.array(inside, np.int64).reshape(-1, 2), stray])),
        known=names[: active * genes],
        gene_sets=members,
    )


def _scale(responses: np.ndarray) -> tuple[float, float]:
    """Mean and standard deviation of those that are known."""
    known = responses[~np.isnan(responses)]
    if known.size == 0 or np.ptp(known) == 0:
        raise DataError(
            "there is nothing to learn from these responses",
            expected="training patients that differ in their responses",
            got=f"{known.size} responses" + (f", all {known[0]:g}" if known.size else ""),
            mend="look at the response column, or give more patients",
        )
    return float(known.mean()), float(known.std())


def _matrix(path: Path) -> DataFrame:
    """Patients x genes, numbers only."""
    pandas = require("pandas")
    # names are text: 001 is not 1
    frame = pandas.read_csv(path, dtype={0: str}, index_col=0)
    # as they are written: pandas renames the second of two genes of one name
    header = pandas.read_csv(path, header=None, nrows=1, dtype=str, keep_default_na=False).iloc[0, 1:].tolist()
    frame.index, frame.columns = frame.index.astype(str), pandas.Index(header)
    for what, names in (("patients", frame.index), ("genes", frame.columns)):
        if frame.empty or not names.is_unique:
            twice = names[names.duplicated()].unique()[:3].tolist()
            raise DataError(
                f"{path} is no expression table",
                expected=f"different {what}",
                got=f"{', '.join(twice)} more than once" if twice else f"{frame.shape[0]} patients",
                mend="name every patient and every gene once",
            )
    wrong = [c for c in frame.columns if frame[c].dtype.kind not in "iuf" or not np.isfinite(frame[c]).all()]
    if wrong:
        raise DataError(
            f"{path} has entries that are no numbers",
            expected="finite numbers",
            got=f"others in {len(wrong)} columns, such as {wrong[0]}",
            mend="drop these genes, or fill them in",
        )
    return frame


def _columns(path: Path, texts: tuple[str, ...], number: str | None = None) -> DataFrame:
    """A table's columns of names, and one of numbers."""
    wanted = [*texts, *([] if number is None else [number])]
    frame = require("pandas").read_csv(path, dtype=dict.fromkeys(texts, str))
    if absent := [name for name in wanted if name not in frame.columns]:
        raise DataError(
            f"{path} lacks columns",
            expected=", ".join(wanted),
            got=f"no {', '.join(absent)}",
            mend="name the columns in the first line",
        )
    if number is not None and (frame[number].dtype.kind not in "iuf" or not np.isfinite(frame[number]).all()):
        raise DataError(
            f"{path}: {number} is no number everywhere",
            expected="finite numbers",
            got="others",
            mend="drop these lines, or fill them in",
        )
    if frame[list(texts)].isna().any(axis=None) or frame.empty:
        raise DataError(
            f"{path} has empty names or no lines", expected=", ".join(texts), got="others", mend="drop these lines"
        )
    return frame[wanted]


def _every(values: object, names: tuple[str, ...], what: str) -> np.ndarray:
    """A series' values for these names."""
    known = dict(values.items())  # type: ignore[attr-defined]
    if absent := [name for name in names if name not in known]:
        raise DataError(
            f"every {what} is needed",
            expected=f"{len(names)} of them",
            got=f"none for {absent[0]}",
            mend="add it to the file",
        )
    return np.array([known[name] for name in names])


def _names(path: Path) -> tuple[str, ...]:
    """Names, one a line; none where there is no file."""
    if not path.is_file():
        return ()
    lines = (line.strip() for line in path.read_text(encoding="utf-8").splitlines())
    return tuple(line for line in lines if line and not line.startswith("#"))

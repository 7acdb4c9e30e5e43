"""Drug response that cannot be used is named, not turned into something else."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

import rightly as rt
from rightly.core.errors import DataError

PLANTED = rt.data.plant_drug_response(patients=20, modules=3, genes=4, active=2, drugs=2, seed=0)


@pytest.mark.parametrize("value", [2.0, np.nan])
def test_responses_that_do_not_differ_are_named(value: float) -> None:
    response = np.full_like(PLANTED.response, value)
    with pytest.raises(DataError, match="nothing to learn") as caught:
        replace(PLANTED, response=response).split(0)
    assert ("all 2" in str(caught.value)) == (value == 2)


def test_responses_are_standardised_by_the_training_examples() -> None:
    labels = PLANTED.split(0).train.labels.double()
    assert labels.mean().item() == pytest.approx(0, abs=1e-6)
    assert labels.std(correction=0).item() == pytest.approx(1, rel=1e-6)


def folder(place: Path, header: str) -> Path:
    values = "\n".join(f"{name},1.5,2,{k}" for k, name in enumerate(("001", "1", "x")))
    (place / "expression.csv").write_text(f"{header}\n{values}\n")
    (place / "response.csv").write_text("patient,drug,response\n001,D,1\n1,D,2\nx,D,3\n")
    (place / "graph.tsv").write_text("TP53\tMYC\n")
    return place


def test_a_gene_that_comes_twice_is_named_and_not_renamed(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="different genes") as caught:
        rt.data.read_drug_response(folder(tmp_path, "patient,TP53,MYC,TP53"))
    assert "TP53 more than once" in str(caught.value)


def test_genes_keep_the_names_that_they_have(tmp_path: Path) -> None:
    found = rt.data.read_drug_response(folder(tmp_path, "patient,TP53,MYC,TP53.1"))
    assert found.genes == ("TP53", "MYC", "TP53.1")
    assert found.patients == ("001", "1", "x")
    # a name that pandas takes for a missing one, and one that it takes for a number
    found = rt.data.read_drug_response(folder(tmp_path, "patient,TP53,MYC,NA"))
    assert found.genes == ("TP53", "MYC", "NA")


def test_a_patient_who_comes_twice_is_named(tmp_path: Path) -> None:
    place = folder(tmp_path, "patient,TP53,MYC,A")
    with (place / "expression.csv").open("a") as file:
        file.write("x,1,2,3\n")
    with pytest.raises(DataError, match="different patients"):
        rt.data.read_drug_response(place)

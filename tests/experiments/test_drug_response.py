"""The drug-response recipe on a user's own folder, and what it says where there is none."""

import numpy as np
import pytest

import rightly as rt
from rightly.core.errors import DataError
from rightly.report import read_record
from rightly.workflows.reproduce import reproduce


def test_a_users_folder_runs(tmp_path):
    planted = rt.data.plant_drug_response(patients=40, modules=4, genes=5, active=2, drugs=3, seed=0)
    folder = tmp_path / "mine"
    folder.mkdir()
    levels = np.exp2(planted.expression + 3)
    lines = [",".join([name, *map(repr, row.tolist())]) for name, row in zip(planted.patients, levels, strict=True)]
    (folder / "expression.csv").write_text("\n".join([",".join(["patient", *planted.genes]), *lines]))
    known = zip(*np.nonzero(~np.isnan(planted.response)), strict=True)
    answers = [f"{planted.patients[p]},{planted.drugs[d]},{planted.response[p, d]}" for p, d in known]
    (folder / "response.csv").write_text("\n".join(["patient,drug,response", *answers]))
    names = [f"{planted.genes[i]}\t{planted.genes[j]}" for i, j in planted.graph.edges]
    (folder / "graph.tsv").write_text("\n".join(names))
    (folder / "known_genes.txt").write_text("\n".join(planted.known))
    out = reproduce(
        "drug-response-graph", out=tmp_path / "run", dataset="beat-aml", data_dir=folder, smoke=True, progress=False
    )
    record = read_record(out)
    assert record["data"]["name"] == "beat-aml"
    assert record["data"]["rows"] == len(answers)
    assert any("Known genes" in claim["claim"] for claim in record["claims"])


def test_a_folder_without_the_files_is_told_the_layout(tmp_path):
    with pytest.raises(DataError, match=r"gene_lengths\.csv"):
        reproduce(
            "drug-response-graph",
            out=tmp_path / "run",
            dataset="beat-aml",
            data_dir=tmp_path,
            smoke=True,
            progress=False,
        )

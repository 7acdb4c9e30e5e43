"""Gene graphs, expression and drug response: against slow versions, closed forms and bad files."""

import gzip

import numpy as np
import pytest
import torch

import rightly as rt
from rightly.core.errors import ArgumentError, DataError, ShapeError
from rightly.data import ExpressionEncoder, correct_batches, fpkm, gene_graph, read_drug_response, read_gene_graph

GENES = ("A", "B", "C", "D", "E")


def slow_adjacency(genes, edges, weights):
    """Edge by edge: the largest weight of each, no loops."""
    matrix = torch.zeros(len(genes), len(genes))
    for (a, b), weight in zip(edges, weights, strict=True):
        if a in genes and b in genes and a != b:
            i, j = genes.index(a), genes.index(b)
            matrix[i, j] = matrix[j, i] = max(float(matrix[i, j]), weight)
    return matrix


def test_a_graph_is_its_edge_list():
    edges = [("B", "A"), ("A", "B"), ("C", "C"), ("D", "X"), ("E", "A"), ("C", "D"), ("X", "X")]
    weights = [0.5, 0.75, 1.0, 1.0, 0.25, 0.0, 1.0]
    graph = gene_graph(GENES, edges, weights)
    assert torch.equal(graph.adjacency.to_dense(), slow_adjacency(GENES, edges, weights))
    assert graph.edges.tolist() == [[0, 1], [0, 4]]
    assert graph.left_out == {"unknown": 2, "loops": 1, "zero": 1, "repeated": 1}
    assert rt.priors.GraphSmoothness(graph.adjacency).weights.tolist() == [0.75, 0.25]


def test_positions_and_names_give_one_graph():
    named = gene_graph(GENES, [("A", "C"), ("D", "B")])
    numbered = gene_graph(GENES, np.array([[2, 0], [1, 3]], np.uint16))
    assert np.array_equal(named.edges, numbered.edges)
    assert gene_graph(GENES, []).adjacency.to_dense().abs().sum() == 0


def test_part_of_a_graph():
    graph = gene_graph(GENES, [("A", "B"), ("B", "C"), ("C", "E")], [1, 2, 3])
    part = graph.among(("E", "C", "B"))
    assert part.edges.tolist() == [[0, 1], [1, 2]]
    assert part.weights.tolist() == [3, 2]
    assert part.left_out["unknown"] == 1


@pytest.mark.parametrize(
    ("wrong", "error"),
    [
        (lambda: gene_graph(("A", "A"), []), ArgumentError),
        (lambda: gene_graph(GENES, np.array([[0, 5]])), ArgumentError),
        (lambda: gene_graph(GENES, np.array([[0.0, 1.0]])), ArgumentError),
        (lambda: gene_graph(GENES, np.array([0, 1])), ShapeError),
        (lambda: gene_graph(GENES, [("A", "B")], [1, 2]), ShapeError),
        (lambda: gene_graph(GENES, [("A", "B")], [-1]), ArgumentError),
        (lambda: gene_graph(GENES, [("A", "B")], [np.nan]), ArgumentError),
    ],
)
def test_what_is_no_graph(wrong, error):
    with pytest.raises(error, match="expected"):
        wrong()


def random_graph(seed=0, genes=40, edges=120):
    draws = np.random.default_rng(seed)
    return gene_graph(
        [f"G{i}" for i in range(genes)], draws.integers(genes, size=(edges, 2)), draws.random(edges) + 0.1
    )


@pytest.mark.parametrize("keep", [False, True])
def test_a_random_graph_has_as_many_edges_elsewhere(keep):
    graph = random_graph()
    other = graph.randomised(3, keep_degrees=keep)
    found = {tuple(edge) for edge in other.edges.tolist()}
    assert len(found) == len(graph.edges)
    assert all(i < j for i, j in found)
    assert sorted(other.weights) == sorted(graph.weights)
    assert len(found & {tuple(edge) for edge in graph.edges.tolist()}) < len(found) / 2
    degrees = [np.bincount(g.edges.ravel(), minlength=40).tolist() for g in (graph, other)]
    assert (degrees[0] == degrees[1]) == keep
    again, third = graph.randomised(3, keep_degrees=keep), graph.randomised(4, keep_degrees=keep)
    assert np.array_equal(other.edges, again.edges)
    assert not np.array_equal(other.edges, third.edges)


def test_every_position_is_as_likely():
    graph = gene_graph("ABCDE", [("A", "B"), ("A", "C")])
    counts = np.zeros((5, 5))
    for seed in range(2000):
        i, j = graph.randomised(seed).edges.T
        counts[i, j] += 1
    places = counts[np.triu_indices(5, 1)]
    assert counts.sum() == places.sum() == 4000
    assert abs(places - 400).max() < 5 * np.sqrt(400 * 0.8)


def test_graphs_that_cannot_change_stay():
    full = gene_graph("ABC", [("A", "B"), ("B", "C"), ("A", "C")])
    for keep in (False, True):
        assert np.array_equal(full.randomised(0, keep_degrees=keep).edges, full.edges)
    assert len(gene_graph("AB", []).randomised(0, keep_degrees=True).edges) == 0


@pytest.mark.parametrize("packed", [False, True])
def test_graphs_from_files(tmp_path, packed):
    text = "# HumanBase\nA\tB\t0.5\n\nC,D\nB A 0.25\nX\tA\t1\n"
    path = tmp_path / ("graph.tsv.gz" if packed else "graph.tsv")
    path.write_bytes(gzip.compress(text.encode()) if packed else text.encode())
    graph = read_gene_graph(path, GENES)
    assert graph.edges.tolist() == [[0, 1], [2, 3]]
    assert graph.weights.tolist() == [0.5, 1.0]


@pytest.mark.parametrize(
    ("text", "told"),
    [("A\tB\tstrong\n", "line 1"), ("gene\n", "line 1"), ("A B -1", "line 1"), ("7157\t672\t1\n", "one kind of name")],
)
def test_files_that_are_no_graph(tmp_path, text, told):
    (tmp_path / "graph.tsv").write_text(text)
    with pytest.raises(DataError, match=told):
        read_gene_graph(tmp_path / "graph.tsv", GENES)
    with pytest.raises(DataError, match="not there"):
        read_gene_graph(tmp_path / "other.tsv", GENES)
    (tmp_path / "graph.gz").write_text(text)
    with pytest.raises(DataError, match="no text"):
        read_gene_graph(tmp_path / "graph.gz", GENES)


def test_gene_sets(tmp_path):
    (tmp_path / "sets.gmt").write_text("one\tsome words\tA\tB\ntwo\t\tC\n")
    assert rt.data.read_gene_sets(tmp_path / "sets.gmt") == {"one": ("A", "B"), "two": ("C",)}
    (tmp_path / "sets.gmt").write_text("one\tsome words\n")
    with pytest.raises(DataError, match="line 1"):
        rt.data.read_gene_sets(tmp_path / "sets.gmt")


def test_fpkm_by_hand():
    counts, lengths = np.array([[10, 30, 0], [1, 1, 2]]), np.array([1000, 500, 2000])
    expected = [[x * 1e9 / (sum(row) * length) for x, length in zip(row, lengths, strict=True)] for row in counts]
    assert np.allclose(fpkm(counts, lengths), expected, rtol=1e-12)
    for wrong in ((-counts, lengths), (counts, lengths * 0), (counts * 0, lengths), (counts, lengths[:2])):
        with pytest.raises((ArgumentError, ShapeError), match="expected"):
            fpkm(*wrong)


def test_scales_come_from_the_training_rows():
    draws = np.random.default_rng(0)
    train, test = draws.exponential(size=(30, 5)) * 100, draws.exponential(size=(8, 5)) * 900
    train[:22, 1] = 0  # 73 % zeros
    train[:, 2] = 4.0  # does not vary
    train[:20, 3] = 0  # 67 % zeros
    encoder = ExpressionEncoder(coding={"A", "B", "C", "D"}).fit(train, GENES)
    assert encoder.genes == ("A", "D")
    logs = np.log2(train + 1)
    expected = (np.log2(test + 1) - logs.mean(0)) / np.where(logs.std(0) > 0, logs.std(0), 1)
    assert np.allclose(encoder.transform(test), expected[:, [0, 3]], rtol=1e-5)
    standard = encoder.transform(train)
    assert np.allclose(standard.mean(0), 0, atol=1e-6)
    assert np.allclose(standard.std(0), 1, atol=1e-6)
    plain = ExpressionEncoder(log2=False, most_zeros=1).fit(train, GENES)
    assert plain.genes == ("A", "B", "D", "E")
    assert np.allclose(plain.transform(test)[:, 0], (test[:, 0] - train[:, 0].mean()) / train[:, 0].std(), rtol=1e-5)


def test_expression_that_cannot_be_scaled():
    values = np.random.default_rng(0).normal(size=(6, 5))
    with pytest.raises(DataError, match="log2=False"):
        ExpressionEncoder().fit(values, GENES)
    with pytest.raises(DataError, match="no gene is left"):
        ExpressionEncoder(log2=False).fit(np.ones((6, 5)), GENES)
    with pytest.raises(ArgumentError, match="fit"):
        ExpressionEncoder().transform(values)
    with pytest.raises(ShapeError, match="genes"):
        ExpressionEncoder(log2=False).fit(values, GENES).transform(values[:, :3])
    with pytest.raises(ArgumentError, match="finite"):
        ExpressionEncoder(log2=False).fit(values * np.nan, GENES)
    with pytest.raises(ArgumentError, match="share"):
        ExpressionEncoder(most_zeros=70)


def test_batches_are_brought_together():
    pytest.importorskip("inmoose", reason="needs the extra genomics")
    draws = np.random.default_rng(0)
    values, batches = draws.normal(size=(40, 30)), ["x"] * 20 + ["y"] * 20
    shifted = values.copy()
    shifted[20:] = 3 * shifted[20:] + draws.normal(size=30) * 4
    corrected = correct_batches(shifted, batches)
    apart = [abs(v[:20].mean(0) - v[20:].mean(0)).mean() for v in (shifted, corrected)]
    assert apart[1] < apart[0] / 10
    assert corrected[20:].std() < 1.5 * corrected[:20].std()
    held = correct_batches(shifted, batches, reference="x")
    assert np.allclose(held[:20], shifted[:20])
    assert abs(held[20:].mean(0) - shifted[:20].mean(0)).mean() < apart[0] / 10


def test_batches_that_cannot_be_corrected():
    values = np.ones((4, 3))
    assert np.array_equal(correct_batches(values, "aaaa"), values)
    for wrong in ({"batches": "aab"}, {"batches": "aaab"}, {"batches": "aabb", "reference": "c"}):
        with pytest.raises((ShapeError, ArgumentError), match="batch"):
            correct_batches(values, **wrong)


# ------------------------------------------------------------------------------------------------------- drug response


def write_folder(place):
    """Seven patients with counts; one without a response, and one without expression."""
    draws = np.random.default_rng(0)
    genes = [f"G{i}" for i in range(6)]
    counts = draws.integers(1, 200, (7, 6))
    rows = [",".join([f"P{p}", *map(str, row)]) for p, row in enumerate(counts)]
    (place / "expression.csv").write_text("\n".join([",".join(["", *genes]), *rows]) + "\n")
    answers = [
        f"P{p},{drug},{p + 10 * (drug == 'y')}" for p in (*range(6), 99) for drug in "xy" if (p, drug) != (2, "y")
    ]
    (place / "response.csv").write_text("\n".join(["patient,drug,response", *answers, "P0,x,4"]) + "\n")
    (place / "graph.tsv").write_text("G0\tG1\t0.5\nG2\tG5\t1\nG2\tother\t1\n")
    (place / "gene_lengths.csv").write_text("gene,length\n" + "".join(f"{g},{1000 + i}\n" for i, g in enumerate(genes)))
    (place / "known_genes.txt").write_text("# from GeneCards\nG2\nG5\nZZ\n")
    (place / "gene_sets.gmt").write_text("set\t\tG0\tG1\n")
    return counts


def test_a_users_folder_is_read(tmp_path):
    counts = write_folder(tmp_path)
    data = read_drug_response(tmp_path)
    assert data.patients == tuple(f"P{p}" for p in range(6))
    assert data.drugs == ("x", "y")
    assert np.allclose(data.expression, fpkm(counts[:6], np.arange(1000, 1006)))
    assert data.response[0].tolist() == [2, 10]  # the mean of two measurements
    assert np.isnan(data.response[2, 1])
    assert data.graph.edges.tolist() == [[0, 1], [2, 5]]
    assert data.known == ("G2", "G5", "ZZ")
    assert data.gene_sets == {"set": ("G0", "G1")}
    assert data.log2
    assert not data.batches


@pytest.mark.parametrize(
    ("name", "text", "told"),
    [
        ("expression.csv", None, "graph.tsv"),  # the whole layout is told
        ("graph.tsv", "a\tb\n", "one kind of name"),
        ("response.csv", "patient,drug,ic50\nP0,x,1\n", "lacks columns"),
        ("response.csv", "patient,drug,response\nP0,x,high\n", "no number"),
        ("response.csv", "patient,drug,response\nQ0,x,1\n", "name patients alike"),
        ("response.csv", "patient,drug,response\nP0,,1\n", "empty names"),
        ("expression.csv", ",G0,G1\nP0,1,\nP1,1,2\n", "no numbers"),
        ("expression.csv", ",G0,G1\nP0,1,1\nP0,1,2\n", "different patients"),
        ("gene_lengths.csv", "gene,length\nG0,100\n", "every length"),
        ("batches.csv", "patient,batch\nP0,1\n", "every batch"),
    ],
)
def test_folders_that_cannot_be_read(tmp_path, name, text, told):
    write_folder(tmp_path)
    if text is None:
        (tmp_path / name).unlink()
    else:
        (tmp_path / name).write_text(text)
    with pytest.raises(DataError, match=told):
        read_drug_response(tmp_path)


def test_patients_are_kept_apart():
    data = rt.data.plant_drug_response(patients=40, modules=4, drugs=12, seed=1)
    split = data.split(0)
    parts = [split.train, split.validation, split.test]
    patients = [set(part.patients.tolist()) for part in parts]
    assert sum(map(len, patients)) == len(set.union(*patients)) == 40
    assert [len(p) for p in patients] == [26, 6, 8]
    assert sum(len(part.labels) for part in parts) == int((~np.isnan(data.response)).sum())
    genes = len(split.graph.genes)
    for part in parts:
        assert part.inputs.shape == (len(part.labels), genes + 12)
        drugs = part.inputs[:, genes:]
        assert (drugs.argmax(1).numpy() == part.drugs).all()
        assert torch.allclose(drugs.sum(1), torch.tensor(12.0).sqrt())
        # a label is that patient's answer to that drug, on the scale of the training rows
        raw = torch.from_numpy(data.response[part.patients, part.drugs]).float()
        fit = torch.linalg.lstsq(torch.stack([raw, torch.ones_like(raw)], 1), part.labels).solution
        assert torch.allclose(raw * fit[0] + fit[1], part.labels[:, 0], atol=1e-4)
    assert torch.allclose(split.train.labels.mean(), torch.zeros(()), atol=1e-5)
    rows = np.unique(split.train.patients)
    first = [int(np.flatnonzero(split.train.patients == row)[0]) for row in rows]
    lines = split.train.inputs[first][:, :genes]
    assert torch.allclose(lines.mean(0), torch.zeros(genes), atol=1e-5)


def test_what_is_planted_can_be_found():
    data = rt.data.plant_drug_response(patients=400, modules=5, genes=4, active=2, drugs=20, noise=0.1, seed=3)
    assert data.known == data.genes[:8]
    answers = data.response - np.nanmean(data.response, 0)
    common = np.nanmean(answers, 1)  # c_m: 1 for the first pathway, -1 for the second
    found = np.array([np.corrcoef(common, gene)[0, 1] for gene in data.expression.T])
    assert (found[:4] > 0.2).all()
    assert (found[4:8] < -0.2).all()
    assert abs(found[8:]).max() < 0.15
    inside = sum(i // 4 == j // 4 for i, j in data.graph.edges.tolist())
    assert inside / len(data.graph.edges) > 0.8
    assert np.array_equal(
        data.expression,
        rt.data.plant_drug_response(patients=400, modules=5, genes=4, active=2, drugs=20, noise=0.1, seed=3).expression,
    )


def test_gdsc_as_it_comes():
    place = rt.data.available()["gdsc_methylation_ic50"]
    if place.startswith("not here"):
        pytest.skip("GDSC is not here: set RIGHTLY_DATA to a folder that holds gdsc_methylation_ic50.npz")
    data = rt.data.gdsc_drug_response(rt.data.load_arrays("gdsc_methylation_ic50"))
    assert data.expression.shape == (561, 581)
    assert len(data.graph.edges) == 8369
    assert int((~np.isnan(data.response)).sum()) == 120_084
    with pytest.raises(DataError, match="ln_ic50"):
        rt.data.gdsc_drug_response({"x": data.expression})

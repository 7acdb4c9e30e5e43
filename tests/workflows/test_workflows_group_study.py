"""Ladders: how strengths are chosen, what a method is shown and trained on, and what the report says."""

import pytest
import torch

import rightly as rt
from rightly.core.errors import ArgumentError
from rightly.evaluation import compare, group_accuracy, others_regions
from rightly.workflows import group_study
from rightly.workflows.group_report import KNOWN, UNKNOWN, comparisons, ladder, paired, run_entries
from rightly.workflows.group_study import Arm, Part, Parts, Study, choose, filled_in, noised, run_study
from rightly.workflows.reproduce import Settings, Trials


def rows(n, seed, *, follows):
    """A class told by one place of 4 x 4 pictures, and by another in a share of the rows."""
    draws = torch.Generator().manual_seed(seed)
    labels = torch.arange(n) % 2
    agrees = torch.rand(n, generator=draws) < follows
    inputs = 0.3 * torch.rand(n, 1, 4, 4, generator=draws)
    inputs[:, 0, 2, 2] += 0.4 * labels
    inputs[:, 0, 0, 0] = torch.where(agrees, labels, 1 - labels).float()
    irrelevant = torch.zeros(n, 1, 4, 4, dtype=torch.bool)
    irrelevant[:, 0, 0, 0] = True
    return Part(inputs, labels, torch.stack([labels, agrees.long()], 1), irrelevant)


def parts(seed):
    return Parts(
        train=rows(200, seed, follows=0.95),
        annotated=torch.arange(200) < 100,
        held_out=rows(60, seed + 50, follows=0.5),
        validation=rows(80, seed + 100, follows=0.95),
        grouped=rows(80, seed + 200, follows=0.5),
        tests={"test": rows(200, seed + 300, follows=0.5), "clean": rows(100, seed + 400, follows=0.5)},
    )


def reasons(weight):
    return [rt.recipes.right_for_the_right_reasons(weight)]


def others(regions, seed):
    return others_regions(regions, seed=seed)


ARMS = {
    "plain": Arm("Plain"),
    "reasons": Arm("Right reasons", "the place", (0.01, 10.0), reasons),
    "random": Arm("Random places", "nothing", (10.0,), reasons, annotated=others),
    "dropped": Arm("Dropped", changed=filled_in),
    "noised": Arm("Noised", changed=noised),
    "joined": Arm("Joined", joined=True),
    "dro": Arm("GroupDRO", "groups", (0.1, 1.0), dro=True),
    "dfr": Arm("DFR", "rows", (0.01,), retrained=True),
    "small": Arm("Small", network="small"),
}


def study(**changes):
    made = {
        "name": "toy",
        "groupings": {"class": (0,), "class and place": (0, 1)},
        "arms": ARMS,
        "parts": parts,
        "networks": {name: network(size) for name, size in (("main", 8), ("small", 2))},
        "seeds": [0, 1, 2],
        "tried": 2,
        "fit": {"epochs": 15, "batch_size": 50, "lr": 0.03},
    }
    return Study(**made | changes)


def network(size):
    return lambda seed: rt.models.mlp(16, (size,), 2, seed=seed)


def settings(path, **changes):
    trials = Trials(path / "trials.jsonl", {}, resume=False, progress=False)
    return Settings("smoke", 0, None, None, "auto", trials)


@pytest.fixture(scope="module")
def found(tmp_path_factory):
    return run_study(study(), settings(tmp_path_factory.mktemp("toy")))


def test_the_best_strength_is_chosen_and_of_equals_the_strongest():
    tried = [
        {"strength": s, "seed": seed, KNOWN: a, UNKNOWN: b}
        for s, seed, a, b in (
            (1.0, 0, 0.1, 0.9),
            (1.0, 1, 0.9, 0.9),
            (2.0, 0, 0.6, 0.9),
            (2.0, 1, 0.5, 0.9),
            (3.0, 0, 0.2, 0.8),
        )
    ]
    assert choose(tried, KNOWN) == 2.0
    assert choose(tried, UNKNOWN) == 2.0


def test_every_arm_is_trained_with_every_seed_at_what_each_rule_chose(found):
    assert set(found.rows) == {KNOWN, UNKNOWN}
    for rule, by_arm in found.rows.items():
        assert list(by_arm) == list(ARMS)
        for name, trials in by_arm.items():
            assert [row["seed"] for row in trials] == [0, 1, 2]
            assert {row["strength"] for row in trials} == {found.chosen[rule][name]}
            tried = [row for row in found.tried if row["arm"] == name]
            assert {row["seed"] for row in tried} == {0, 1}
            assert found.chosen[rule][name] == choose(tried, rule)


def test_trials_are_what_rt_fit_gives(found):
    """Right reasons by hand: half of the rows annotated, and each number from the model."""
    chosen, made = found.chosen[KNOWN]["reasons"], parts(1)
    shown = torch.where(made.annotated[:, None, None, None], made.train.irrelevant.float(), torch.nan)
    model = network(8)(1)
    objective = rt.Objective(model, torch.nn.functional.cross_entropy, reasons(chosen), seed=1)
    rt.fit(objective, (made.train.inputs, made.train.labels, rt.Annotation(irrelevant=shown)), seed=1, **study().fit)
    row = next(row for row in found.rows[KNOWN]["reasons"] if row["seed"] == 1)

    def tested(part, columns):
        with torch.no_grad():
            return group_accuracy(model(part.inputs), part.labels, part.groups[:, columns])

    assert row["validation"] == tested(made.validation, [0]).average.mean
    assert row["validation_worst"] == tested(made.grouped, [0]).worst.mean
    assert row["test"] == tested(made.tests["test"], [0]).average.mean
    assert row["test_worst"] == row["test_worst_class"] == tested(made.tests["test"], [0]).worst.mean
    assert row["clean_worst_class and place"] == tested(made.tests["clean"], [0, 1]).worst.mean
    assert row["engines"]["right_reasons"].startswith("frozen-masks")


def mean(found, arm, key):
    return sum(row[key] for row in found.rows[KNOWN][arm]) / 3


def test_what_a_method_is_told_helps(found):
    key = "test_worst_class and place"
    plain = mean(found, "plain", key)
    for arm in ("reasons", "dropped", "noised", "dro", "dfr"):
        assert mean(found, arm, key) > plain + 0.1, arm
    assert mean(found, "reasons", "inside") < 0.2 * mean(found, "plain", "inside")


def spied(monkeypatch, name, tmp_path):
    """What ``fit`` is given when one arm is trained."""
    given = []

    def fit(objective, data, **settings):
        given.append((objective, data))
        return rt.fit(objective, data, **settings)

    monkeypatch.setattr(group_study, "fit", fit)
    arms = {name: ARMS[name]}
    run_study(study(arms=arms, seeds=[0], tried=1, fit={"epochs": 1}), settings(tmp_path))
    return given[-1]


def test_methods_are_shown_what_they_are_told(monkeypatch, tmp_path):
    made = parts(0)
    _, (inputs, labels, note) = spied(monkeypatch, "joined", tmp_path / "joined")
    assert torch.equal(inputs, torch.cat([made.train.inputs, made.held_out.inputs]))
    assert torch.equal(labels, torch.cat([made.train.labels, made.held_out.labels]))
    assert note.irrelevant.isnan().flatten(1).any(1).tolist() == [False] * 100 + [True] * 100 + [False] * 60
    objective, (inputs, labels, _) = spied(monkeypatch, "dro", tmp_path / "dro")
    assert isinstance(objective.loss, rt.GroupDRO)
    assert objective.loss.groups == 4
    assert torch.equal(labels, rt.with_groups(made.train.labels, 2 * made.train.labels + made.train.groups[:, 1]))
    _, (inputs, _, _) = spied(monkeypatch, "dropped", tmp_path / "dropped")
    assert torch.equal(inputs, filled_in(made.train, made.train, 0).inputs)
    _, (_, _, note) = spied(monkeypatch, "random", tmp_path / "random")
    assert torch.equal(note.irrelevant[:100].bool(), others_regions(made.train.irrelevant, seed=0)[:100])


def test_regions_are_filled_and_noised_and_nothing_else():
    train, part = rows(50, 0, follows=1.0), rows(20, 1, follows=0.5)
    filled, again = filled_in(part, train, 0), noised(part, train, 0)
    assert torch.equal(filled.inputs[part.irrelevant], train.inputs[:, 0, 0, 0].mean().expand(20))
    assert again.inputs[part.irrelevant].std() > 0.1
    for changed in (filled, again):
        assert torch.equal(changed.inputs[~part.irrelevant], part.inputs[~part.irrelevant])
        assert torch.equal(changed.labels, part.labels)
    assert torch.equal(noised(part, train, 0).inputs, again.inputs)
    assert not torch.equal(noised(part, train, 1).inputs, again.inputs)


def test_the_report_tells_what_was_found(found):
    told = study()
    table = ladder(told, found, "Ladder", {"worst": "test_worst", "average": "test"})
    assert len(table["rows"]) == len(ARMS)
    assert all(len(row) == len(table["columns"]) == 8 for row in table["rows"])
    assert table["rows"][0][:3] == ["Plain", "nothing", None]
    runs = run_entries(told, found, "test")
    assert runs["reasons"]["weight"] == found.chosen[KNOWN]["reasons"]
    assert runs["reasons"]["weight_choice"]["candidates"][0]["weight"] == 0.01
    assert "weight_choice" not in runs["plain"]
    values = [row["test_worst"] for row in found.rows[KNOWN]["dro"]]
    assert runs["dro"]["metrics"]["test"]["worst_group_accuracy"]["values"] == values
    expected = compare([row["test_worst"] for row in found.rows[KNOWN]["plain"]], values)
    assert comparisons(found, "dro", "test")["worst_group_accuracy"]["difference"] == expected.difference
    tests = paired(told, found, "test_worst", "Paired", {"main": "plain", "small": "small"})
    assert len(tests["rows"]) == len(ARMS) - 2
    line = next(row for row in tests["rows"] if row[0] == "GroupDRO")
    assert (line[1], line[2]) == ("Plain", expected.difference)
    assert line[5] is None or line[5] >= expected.p


def test_an_error_in_a_trial_is_the_user_s(tmp_path):
    arms = {"plain": Arm("Plain"), "bad": Arm("Bad", strengths=(-1.0,), terms=reasons)}
    with pytest.raises(ArgumentError):
        run_study(study(arms=arms), settings(tmp_path))

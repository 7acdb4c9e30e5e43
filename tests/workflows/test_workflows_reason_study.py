"""Ways of telling the right reasons side by side: how strengths are chosen, and what the report says of them."""

import pytest

import rightly as rt
from rightly.evaluation import adjust, compare
from rightly.workflows import reason_study
from rightly.workflows.reason_study import (
    Contest,
    Found,
    Study,
    Way,
    claims,
    comparisons,
    paired,
    run_entries,
    run_study,
    table,
)
from rightly.workflows.reproduce import Settings, Trials


def terms(weight):
    return [rt.recipes.right_for_the_right_reasons(weight)]


WAYS = {
    "plain": Way("Plain"),
    "reasons": Way("Right reasons", "the place", (0.1, 1.0, 10.0), terms),
    "given": Way("Given", "the place", (2.0,), terms, rows="few", marks="other"),
}
#: what each strength is worth on validation rows, with two seeds: 1 and 10 are equal in the mean
WORTH = {0.1: (0.5, 0.5), 1.0: (0.9, 0.5), 10.0: (0.6, 0.8)}


def work_of(seen):
    def work(way, terms, seed):
        strength = terms[0].weight if terms else 0.0
        seen.append((way.title, strength, way.rows, way.marks, [term.engine for term in terms], seed))
        test = 0.6 + 0.02 * strength + 0.01 * seed * (1 + seed) + 0.001 * seed * strength
        return {"validation": WORTH.get(strength, (0.1, 0.1))[seed % 2], "test": test, "error": 1 - test, "inside": 0.5}

    return work


def study(seen, **changes):
    given = {"ways": WAYS, "work": work_of(seen), "seeds": (0, 1, 2), "tried": 2, "rule": "validation", "told": "worth"}
    return Study(**given | changes)


@pytest.fixture
def settings(tmp_path):
    trials = Trials(tmp_path / "trials.jsonl", {}, resume=False, progress=False)
    return Settings("smoke", 0, None, None, "double-backward", trials)


def test_strengths_are_chosen_on_the_tried_seeds_and_equals_go_to_the_strongest(settings):
    seen = []
    found = run_study(study(seen), settings)
    assert found.chosen == {"plain": 0.0, "reasons": 10.0, "given": 2.0}
    # ways with one strength are not tried; what was tried is not trained again
    assert {row["way"] for row in found.tried} == {"reasons"}
    assert len(seen) == len(set(map(str, seen))) == 6 + 2 * 3 + 1
    assert [row["seed"] for row in found.rows["reasons"]] == [0, 1, 2]
    assert {row["strength"] for row in found.rows["reasons"]} == {10.0}


def test_one_tried_seed_chooses_alone(settings):
    assert run_study(study([], tried=1), settings).chosen["reasons"] == 1.0


def test_work_is_given_the_way_and_its_terms_with_the_engine(settings):
    seen = []
    run_study(study(seen, seeds=(0,), tried=1), settings)
    assert ("Plain", 0.0, "all", "true", [], 0) in seen
    assert ("Given", 2.0, "few", "other", ["double-backward"], 0) in seen


def test_claims_say_which_way_is_better(settings):
    made = study([])
    found = run_study(made, settings)
    first, second = ([row["test"] for row in found.rows[way]] for way in ("plain", "reasons"))
    test = compare(first, second)
    pairs = [("test", "reasons", "plain", False), ("test", "plain", "reasons", False)]
    pairs += [
        ("error", "reasons", "plain", True),
        ("error", "plain", "reasons", True),
        ("inside", "reasons", "plain", True),
    ]
    told = claims(made, found, [Contest("test", "5", *pair) for pair in pairs])
    assert [claim.holds for claim in told] == [True, False, True, False, None]
    assert told[0].claim == "Right reasons above plain: test"
    assert told[2].claim == "Right reasons below plain: test"
    corrected = adjust([test.p] * 4 + [1.0])[0]
    assert test.p < corrected < 0.05
    ends = f"{test.difference:+.3f}, {test.low:+.3f} to {test.high:+.3f}, corrected p = {corrected:.2g}"
    assert told[0].ours == f"{sum(second) / 3:.3f} against {sum(first) / 3:.3f} ({ends})"
    assert told[0].paper == "5"


def test_names_stay_as_they_are_in_claims(settings):
    ways = {"plain": Way("Plain"), "cdep": Way("CDEP, L1"), "eg": Way("Expected gradients")}
    made = study([], ways=ways, work=lambda way, terms, seed: {"validation": 0, "test": seed})
    told = claims(
        made, run_study(made, settings), [Contest("t", "-", "test", *pair) for pair in (("eg", "cdep"), ("cdep", "eg"))]
    )
    assert [claim.claim for claim in told] == [
        "Expected gradients above CDEP, L1: t",
        "CDEP, L1 above expected gradients: t",
    ]


def test_claims_are_corrected_for_how_many_they_are(settings):
    made = study([], work=lambda way, terms, seed: {"validation": 0, "test": len(terms) * (4 + seed), "inside": seed})
    found = run_study(made, settings)
    contest, idle = Contest("t", "-", "test", "reasons"), Contest("t", "-", "inside", "reasons")
    assert claims(made, found, [contest])[0].holds is True
    assert claims(made, found, [contest, *[idle] * 4])[0].holds is None


def test_splits_of_one_table_are_corrected_for(settings):
    found = run_study(study([]), settings)
    wider = reason_study.difference(study([], test_share=0.25), found, "test", "plain", "reasons")
    plain = reason_study.difference(study([]), found, "test", "plain", "reasons")
    assert wider.test == "corrected resampled t-test"
    assert wider.high - wider.low > 1.3 * (plain.high - plain.low)


def test_the_record_and_its_tables(settings):
    made = study([])
    found = run_study(made, settings)
    runs = run_entries(made, found, {"accuracy": "test"}, {"inside": "inside"})
    assert runs["plain"]["weight"] is None
    assert "weight_choice" not in runs["given"]
    choice = runs["reasons"]["weight_choice"]["candidates"]
    assert [(c["weight"], c["chosen"]) for c in choice] == [(0.1, False), (1.0, False), (10.0, True)]
    assert [c["mean"] for c in choice] == pytest.approx([0.5, 0.7, 0.7])
    assert comparisons(made, found, "reasons", {"accuracy": "test"})["accuracy"]["run"] == "reasons"
    drawn = table(made, found, "Table", {"Test": "test"})
    assert [row[:3] for row in drawn["rows"]] == [
        ["Plain", "nothing", None],
        ["Right reasons", "the place", "10"],
        ["Given", "the place", "2"],
    ]
    assert drawn["rows"][1][3].startswith("0.8")
    tests = paired(made, found, "test", "Tests")["rows"]
    assert [row[0] for row in tests] == ["Right reasons", "Given"]
    bare = [reason_study.difference(made, found, "test", "plain", way).p for way in ("reasons", "given")]
    assert [row[4] for row in tests] == adjust(bare)


def test_means_are_told_with_half_their_interval():
    found = Found([], {}, {"plain": [{"test": value} for value in (0.4, 0.5, 0.6)]})
    assert found.mean("plain", "test") == pytest.approx(0.5)
    assert found.told("plain", "test") == "0.500 ± 0.248"

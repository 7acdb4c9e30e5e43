"""Rules become terms that mean what they say: closed forms, gradients against differences, and named refusals."""

from __future__ import annotations

import math

import pytest
import torch
import torch.nn.functional as F
from torch import nn

import rightly as rt
from contracts.derivatives import check_gradient
from rightly.core.errors import RuleError, ShapeError

FEATURES = ["age", "zip", "x", "y"]
CLASSES = ["well", "risk"]


def linear(*rows: list[float]) -> nn.Linear:
    """A model whose input gradients are known."""
    model = nn.Linear(len(rows[0]), len(rows), bias=False).double()
    with torch.no_grad():
        model.weight.copy_(torch.tensor(rows))
    return model


def smooth(outputs: int = 3, seed: int = 0) -> nn.Module:
    draws = torch.Generator().manual_seed(seed)
    model = nn.Sequential(nn.Linear(4, 5), nn.Tanh(), nn.Linear(5, outputs)).double()
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.copy_(torch.randn(parameter.shape, generator=draws, dtype=torch.float64))
    return model


def inputs(rows: int = 6, seed: int = 1) -> torch.Tensor:
    return torch.randn(rows, 4, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def names(**changes):
    given = {
        "features": FEATURES,
        "groups": {"P": ["x", "y"], "all": [0, 1, 2, 3]},
        "concepts": {
            "old": rt.rules.Concept(torch.tensor([2.0, 0, 0, 0]), present=lambda inputs: inputs[:, 0] > 0),
            "half": lambda inputs: torch.full((len(inputs),), 0.25),
            "deep": rt.rules.Concept(torch.arange(1.0, 6.0), rt.spaces.Layer("0")),
        },
        "regions": {"corner": torch.tensor([True, False, False, False])},
        "examples": {"a": torch.zeros(4), "b": torch.ones(4)},
        "classes": CLASSES,
    }
    return given | changes


def term(text: str, **changes):
    (found,) = rt.rules.parse(text).compile(**names(**changes))
    return found


def penalty(text: str, model: nn.Module, x: torch.Tensor, labels: torch.Tensor | None = None, **changes) -> float:
    made = term(text, **changes)
    labels = torch.zeros(len(x), dtype=torch.int64) if labels is None else labels
    return float(rt.Objective(model, F.cross_entropy, [made]).penalty(made, x, labels).detach())


# ---- closed forms on a single logit w = (3, -1, 0.5, 2), which speaks for "risk"

W = [3.0, -1.0, 0.5, 2.0]
SINGLE = {
    'feature "age" increases "risk"': 0,
    'feature "age" decreases "risk"': 3,
    'feature "age" increases "well"': 3,  # the other class of the same logit
    'feature "zip" increases "risk"': 1,
    'features "age" and "zip" decrease "risk"': 3,
    'group "all" increases "risk"': 1,
    'group "P" decreases "risk"': 2.5,
    'feature "age" does not matter for "risk"': 9,
    'features "age" and "zip" do not matter for "well"': 10,
    'ignore region "corner" for "risk"': 9,
    'ignore group "P" for "risk"': 4.25,
    'concept "old" increases "risk"': 0,
    'concept "old" decreases "risk"': 3,
    'concept "old" does not matter for "risk"': 9,
    'features of group "P" act alike for "risk"': 2 * 0.75**2,
    'features "age" and "zip" act alike for "risk"': 2 * 2.0**2,
    'features "age" and "zip" matter alike for "risk"': 2 * 1.0**2,
    'genes of pathway "all" act alike for "risk"': sum((w - 1.125) ** 2 for w in W),
    'only few features matter for "risk"': 1 - (2 * (0.5 + 2 * 1 + 3 * 2 + 4 * 3) / 6.5 - 5) / 4,
}


@pytest.mark.parametrize("text", SINGLE)
def test_the_penalty_of_a_linear_model_is_known(text):
    assert penalty(text, linear(W), inputs()) == pytest.approx(SINGLE[text], rel=1e-6)


def test_without_a_class_all_of_them_count_as_in_right_reasons():
    x, model = inputs(), linear(W)
    own = rt.recipes.right_for_the_right_reasons(1.0)
    marked = rt.Annotation(irrelevant=torch.tensor([[True, True, False, False]]))
    expected = rt.Objective(model, F.cross_entropy, [own]).penalty(own, x, torch.zeros(6).long(), marked).detach()
    assert penalty('ignore features "age", "zip"', model, x) == pytest.approx(float(expected), rel=1e-9)


def test_of_three_classes_the_log_odds_of_one_are_meant():
    """d/dx log(p / (1 - p)) = w_c - sum over the others of their own softmax times w."""
    rows = [[1.0, 0, 2, 0], [0.0, 1, 0, 0], [-2.0, 0, 1, 3]]
    model, x = linear(*rows), inputs()
    weights = torch.tensor(rows, dtype=torch.float64)
    others = (x @ weights[[0, 2]].T).softmax(1)
    slope = weights[1] - others @ weights[[0, 2]]
    expected = torch.relu(-slope[:, 0]).mean()
    found = penalty('feature "age" increases "b"', model, x, classes=["a", "b", "c"])
    assert found == pytest.approx(float(expected), rel=1e-9)


@pytest.mark.parametrize("shape", [(1, 4), (4,)], ids=["column", "flat"])
def test_a_regression_is_about_its_value(shape):
    weights = torch.tensor(W, dtype=torch.float64)
    model = linear(W) if len(shape) == 2 else nn.Sequential(linear(W), nn.Flatten(0))
    x = inputs()
    rule = 'feature "zip" increases the prediction'
    (made,) = rt.rules.parse(rule).compile(features=FEATURES)
    labels = torch.zeros(6, 1, dtype=torch.float64) if len(shape) == 2 else torch.zeros(6, dtype=torch.float64)
    found = rt.Objective(model, F.mse_loss, [made]).penalty(made, x, labels).detach()
    assert float(found) == pytest.approx(-float(weights[1]))


# ---- conditions and exceptions


@pytest.mark.parametrize(("how", "kept"), [("unless", False), ("when", True)])
def test_a_condition_chooses_examples(how, kept):
    x, model = inputs(), smooth(1)
    rule = 'feature "zip" does not matter for "risk"'
    share = (x[:, 0] > 0).double() if kept else (x[:, 0] <= 0).double()
    each = torch.tensor([penalty(rule, model, row[None]) for row in x], dtype=torch.float64)
    assert 0 < share.sum() < 6
    assert penalty(f'{rule} {how} concept "old"', model, x) == pytest.approx(float((share * each).mean()), rel=1e-9)


def test_a_concept_may_be_there_in_part():
    """Explanations are scaled by how much the rule speaks of an example."""
    x, model = inputs(), linear(W)
    assert penalty('feature "age" decreases "risk" unless concept "half"', model, x) == pytest.approx(0.75 * 3)
    assert penalty('feature "age" decreases "risk" when concept "half"', model, x) == pytest.approx(0.25 * 3)


def test_exceptions_let_the_worst_examples_off():
    x, model = inputs(10), smooth(1)
    rule = 'feature "zip" does not matter for "risk"'
    each = sorted(penalty(rule, model, row[None]) for row in x)
    for share, spared in ((0.1, 1), (0.3, 3), (0.35, 3), (0.05, 0)):
        found = penalty(f"{rule} (exceptions {share})", model, x)
        assert found == pytest.approx(sum(each[: 10 - spared]) / 10, rel=1e-9)


def test_what_is_let_off_gets_no_gradient():
    phi = torch.tensor([[1.0], [3.0], [2.0], [0.5]], requires_grad=True)
    rt.priors.Lenient(rt.priors.L2(), 0.5)(phi).backward()
    assert phi.grad.flatten().tolist() == [0.5, 0, 0, 0.25]


def test_a_share_that_is_a_whole_number_of_examples_is_not_rounded_down():
    phi = torch.arange(1.0, 101.0)
    assert 0.29 * 100 < 29
    assert float(rt.functional.lenient(phi, 0.29)) == pytest.approx(float(phi[:71].sum()) / 100)


# ---- two examples


def test_examples_are_compared_by_what_is_predicted():
    model = linear([1.0, 0, 0, 0], [0.0, 0, 0, 2])
    # scores of a are (0, 0), of b (1, 2): their differences from their mean are (-0.5, 0.5)
    assert penalty('examples "a" and "b" are alike', model, inputs()) == pytest.approx(0.5)
    assert penalty('examples "a" and "b" are alike', linear(W), inputs()) == pytest.approx(4.5**2)


def test_examples_are_read_without_dropout_and_change_nothing():
    model = nn.Sequential(nn.Dropout(0.5), nn.BatchNorm1d(4), nn.Linear(4, 2)).double().train()
    buffers = {name: value.clone() for name, value in model.named_buffers()}
    state = torch.get_rng_state()
    found = {penalty('examples "a" and "b" are alike', model, inputs()) for _ in range(3)}
    assert len(found) == 1
    assert torch.equal(state, torch.get_rng_state())
    assert all(torch.equal(value, buffers[name]) for name, value in model.named_buffers())
    assert model.training
    assert model[0].training


# ---- every kind of rule trains: its gradient is that of differences, and it makes itself more true

EVERY = [
    *(text for text in SINGLE if "few" not in text),
    'feature "zip" increases "risk" unless concept "old"',
    'feature "zip" does not matter (exceptions 0.34)',
    'concept "deep" increases "risk"',
    'concept "deep" does not matter',
    'concept "deep" decreases "risk" when concept "old"',
    'examples "a" and "b" are alike',
    "only 2 features matter",
]


@pytest.mark.parametrize("text", EVERY)
@pytest.mark.parametrize("outputs", [1, 2])
def test_the_gradient_is_that_of_differences(text, outputs):
    x, made = inputs(), term(text)
    labels = torch.tensor([0, 1, 1, 0, 0, 1])
    breaking = (model for seed in range(20) if penalty(text, model := smooth(outputs, seed), x) > 1e-2)
    objective = rt.Objective(next(breaking), F.cross_entropy, [made])
    check_gradient(lambda: objective.penalty(made, x, labels), list(objective.model.parameters()))


def test_rules_that_are_trained_hold_better():
    draws = torch.Generator().manual_seed(0)
    x = torch.randn(400, 4, generator=draws)
    y = (x[:, 0] + x[:, 1] + 0.5 * x[:, 2] > 0).long()
    rules = rt.rules.parse("""
        feature "zip" does not matter (weight 10)
        feature "x" decreases "risk" (weight 10)
    """)
    before, after = (_trained(x, y, terms, rules) for terms in ([], rules.compile(features=FEATURES, classes=CLASSES)))
    for old, new in zip(before, after, strict=True):
        assert new.violation < 0.3 * old.violation
        assert new.holds > old.holds + 0.3


def _trained(x, y, terms, rules):
    model = rt.models.mlp(4, (16,), 2, seed=0)
    rt.fit(rt.Objective(model, F.cross_entropy, terms), (x, y), epochs=30, batch_size=50, lr=0.01)
    return rules.holds(model, x, features=FEATURES, classes=CLASSES)


def test_terms_carry_name_weight_and_engine_of_a_piecewise_linear_model():
    text = 'feature "zip" does not matter unless concept "old" (weight 3)\nonly few features matter (weight balance)'
    terms = rt.rules.parse(text).compile(**names())
    assert [made.name for made in terms] == [
        "feature zip does not matter unless concept old",
        "only few features matter",
    ]
    assert [made.weight for made in terms] == [3.0, "balance"]
    model = rt.models.mlp(4, (8,), 2, seed=0)
    run = rt.fit(rt.Objective(model, F.cross_entropy, terms), (inputs().float(), torch.tensor([0, 1] * 3)), epochs=1)
    assert all(engine.startswith("frozen-masks") for engine in run.engines.values())


def test_models_with_rules_are_trained_many_at_once():
    text = 'feature "zip" does not matter unless concept "old"\nfeature "x" decreases "risk" (exceptions 0.2)'
    terms = rt.rules.parse(text).compile(**names())
    x = inputs(40).float()
    y = (x[:, 1] > 0).long()
    together, alone = (
        rt.fit_many(
            lambda seed: rt.models.mlp(4, (8,), 2, seed=seed),
            F.cross_entropy,
            terms,
            (x, y),
            seeds=range(3),
            epochs=5,
            batch_size=10,
            at_once=at_once,
        )
        for at_once in (3, 1)
    )
    assert [trial.together for trial in together] == [3, 3, 3]
    for first, second in zip(together, alone, strict=True):
        for a, b in zip(first.model.parameters(), second.model.parameters(), strict=True):
            assert torch.allclose(a, b, atol=1e-5)


# ---- features of several inputs, as tables have them

TABLE = {
    "age": rt.rules.Feature((0, 1), value=0, mean=50.0, scale=10.0),  # the second input flags what is missing
    "drug": rt.rules.Feature((2, 3)),
    "drug=no": rt.rules.Feature.at(2),
    "drug=yes": 3,
}


def test_a_category_is_all_its_inputs_and_a_number_grows_in_one():
    model, x = linear(W), inputs()
    assert penalty('ignore feature "drug" for "risk"', model, x, features=TABLE) == pytest.approx(0.25 + 4)
    assert penalty('ignore feature "age" for "risk"', model, x, features=TABLE) == pytest.approx(9 + 1)
    assert penalty('feature "age" decreases "risk"', model, x, features=TABLE) == pytest.approx(3)
    # the flag of what is missing falls, and nothing was said of it
    assert penalty('feature "age" increases "risk"', model, x, features=TABLE) == pytest.approx(0)
    assert penalty('feature "drug=yes" decreases "risk"', model, x, features=TABLE) == pytest.approx(2)


@pytest.mark.parametrize(
    ("condition", "concerned"),
    [
        (rt.rules.Condition("age", above=52), [False, True, True, False]),
        (rt.rules.Condition("age", below=52), [True, False, False, True]),
        (rt.rules.Condition("age", above=42, below=53), [False, True, False, True]),
        (rt.rules.Condition("drug", level="yes"), [True, False, True, False]),
    ],
)
def test_a_concept_is_told_by_a_feature_in_its_own_unit(condition, concerned):
    x = torch.tensor([[-1.0, 0, 0, 1], [0.25, 0, 1, 0], [3, 0, 0, 1], [-0.7, 0, 1, 0]], dtype=torch.float64)
    rule = 'feature "drug=no" decreases "risk" when concept "c"'
    given = {"features": TABLE, "concepts": {"c": condition}, "classes": CLASSES}
    (found,) = rt.rules.parse(rule).holds(linear(W), x, **given)
    assert found.examples == sum(concerned)
    objective = rt.Objective(linear(W), F.cross_entropy, rt.rules.parse(rule).compile(**given))
    each = [float(objective.penalty(objective.terms[0], row[None], torch.zeros(1).long()).detach()) > 0 for row in x]
    assert each == concerned


@pytest.mark.parametrize(("how", "concerned"), [("when", [1]), ("unless", [0, 2, 3])])
def test_a_missing_entry_meets_no_condition(how, concerned):
    """An entry that is missing stands at the mean, 50, with a flag beside it."""
    age = rt.rules.Feature((0, 1), 0, mean=50, scale=10, missing=1)
    features = {**TABLE, "age": age}
    x = torch.tensor([[-1.0, 0, 0, 1], [0, 0, 1, 0], [0, 1, 0, 1], [math.nan, 0, 1, 0]], dtype=torch.float64)
    given = {"features": features, "concepts": {"c": rt.rules.Condition("age", above=45)}, "classes": CLASSES}
    (term,) = rt.rules.parse(f'feature "drug=no" decreases "risk" {how} concept "c"').compile(**given)
    assert term.attribution.concerned(x).nonzero()[:, 0].tolist() == concerned


@pytest.mark.parametrize("count", [3, 5])
@pytest.mark.parametrize(
    "text",
    ['group "g" increases "risk"', 'ignore group "g"', 'features of group "g" act alike'],
)
def test_names_of_other_inputs_are_refused_with_the_rule(text, count):
    """The model reads four inputs; of some of them that are alike, the others need no name."""
    rules = rt.rules.parse(text)
    given = {"features": [f"f{at}" for at in range(count)], "groups": {"g": [0, count - 1]}, "classes": CLASSES}
    if "alike" in text and count == 3:
        assert rules.holds(linear(W), inputs(), **given)
        return
    with pytest.raises(RuleError, match=r"line 1: the names are of [35] inputs") as caught:
        rules.holds(linear(W), inputs(), **given)
    assert caught.value.got == text


def test_a_concept_told_by_a_feature_has_its_direction():
    given = {"features": TABLE, "classes": CLASSES}
    for condition, expected in (
        (rt.rules.Condition("age", above=60), 0),
        (rt.rules.Condition("age", below=60), 3),  # younger raises it where older lowers it
        (rt.rules.Condition("drug", level="yes"), 0),
    ):
        found = penalty('concept "c" increases "risk"', linear(W), inputs(), concepts={"c": condition}, **given)
        assert found == pytest.approx(expected)


def test_regions_of_pictures_and_channel_directions_fit():
    model = nn.Sequential(nn.Conv2d(1, 3, 3), nn.Tanh(), nn.Flatten(), nn.Linear(3 * 16, 2)).double()
    x = torch.randn(4, 1, 6, 6, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
    corner = torch.zeros(1, 6, 6, dtype=torch.bool)
    corner[..., :2, :2] = True
    rules = rt.rules.parse('ignore region "corner" for "risk"\nconcept "tint" does not matter for "risk"')
    given = {
        "regions": {"corner": corner},
        "concepts": {"tint": rt.rules.Concept(torch.tensor([1.0, 2, -1]), rt.spaces.Layer("1"))},
        "classes": CLASSES,
    }
    ignore, tint = rules.compile(**given)
    objective = rt.Objective(model, F.cross_entropy, [ignore, tint])
    gradient = rt.attribute(model, x, "gradient", output=lambda outputs, _: outputs[:, 1] - outputs[:, 0]).attributions
    labels = torch.zeros(4).long()
    expected = gradient[:, corner].square().sum(1).mean()
    assert float(objective.penalty(ignore, x, labels).detach()) == pytest.approx(float(expected), rel=1e-9)
    deep = rt.attribute(
        model, x, "gradient", output=lambda outputs, _: outputs[:, 1] - outputs[:, 0], space=rt.spaces.Layer("1")
    ).attributions
    way = torch.tensor([1.0, 2, -1], dtype=torch.float64) / math.sqrt(6 * 16)
    expected = torch.einsum("bchw,c->b", deep, way).square().mean()
    # ConceptDirection makes the channels' direction a unit vector, so that 16 places count 16 times as much
    assert float(objective.penalty(tint, x, labels).detach()) == pytest.approx(16 * float(expected), rel=1e-9)
    assert all(0 <= found.violation <= 1 for found in rules.holds(model, x, **given))


# ---- names that stand for nothing, or for nothing fit

UNFIT = {
    'feature "ages" increases "risk"': ('there is no feature "ages"', 'did you mean "age"?'),
    'ignore group "Q"': ('there is no group "Q"', None),
    'ignore region "cornr"': ('there is no region "cornr"', 'did you mean "corner"?'),
    'concept "older" does not matter': ('there is no concept "older"', 'did you mean "old"?'),
    'feature "x" does not matter unless concept "new"': ('there is no concept "new"', None),
    'examples "a" and "c" are alike': ('there is no example "c"', 'did you mean "c3"?'),
    'feature "age" increases "riks"': ('there is no class "riks"', 'did you mean "risk"?'),
    'feature "age" increases the prediction': ('"the prediction" is a regression\'s', None),
    'concept "half" does not matter': ('the concept "half" has no direction', None),
    'ignore feature "x" when concept "deep"': ('nothing tells which examples show the concept "deep"', None),
    'concepts "old", "deep" do not matter': ("no rule starts with concepts", None),
    'concept "old", "deep" do not matter': ("a rule speaks of one concept", None),
    'features of group "one" act alike': ("one feature cannot be alike", None),
    'ignore group "none"': ('the group "none" has no members', None),
    'ignore group "text"': ('the group "text" has no members', None),
    'ignore group "lost"': ('there is no feature "lost"', None),
    'ignore group "far"': ("a group has a position that the inputs do not have", None),
    'ignore group "before"': ("a group has a position that the inputs do not have: -1", None),
    'ignore group "half"': ('the group "half" holds 1.5', None),
    'ignore group "yes"': ('the group "yes" holds True', None),
    'concept "middle" increases "risk"': ('the concept "middle" lies between two bounds', None),
    'concept "middle" does not matter': ('the concept "middle" lies between two bounds', None),
    'ignore region "empty"': ('the region "empty" is empty', None),
    'feature "drug" increases "risk"': ('"drug" has no order', None),
    'ignore feature "x" when concept "drugged"': ('the concept "drugged" compares "drug", which has no order', None),
    'examples "a" and "c3" are alike': ("the two examples cannot be compared", None),
    'ignore feature "x" when concept "broken"': (
        'the concept "broken" cannot be used',
        "concepts={'broken': rt.rules.Concept(direction)}",
    ),
}


@pytest.mark.parametrize("text", UNFIT)
def test_a_name_that_stands_for_nothing_is_refused_with_line_and_reason(text):
    given = names(
        features={**{name: at for at, name in enumerate(FEATURES)}, "drug": rt.rules.Feature((2, 3))},
        groups={
            "one": ["x"],
            "none": [],
            "text": "x",
            "lost": ["x", "lost"],
            "far": [1, 7],
            "before": [-1],
            "half": [1.5],
            "yes": [True],
        },
        regions={**names()["regions"], "empty": torch.zeros(4)},
        examples={**names()["examples"], "c3": torch.zeros(3)},
        concepts={
            **names()["concepts"],
            "drugged": rt.rules.Condition("drug", above=1),
            "middle": rt.rules.Condition("age", above=18, below=65),
            "broken": 3,
        },
    )
    reason, mend = UNFIT[text]
    with pytest.raises(RuleError) as caught:
        rt.rules.parse(f'ignore feature "zip"\n\n{text}').compile(**given)
    assert str(caught.value).startswith(f"line 3: {reason}"), str(caught.value)
    assert (caught.value.line, caught.value.got, caught.value.mend) == (3, text, mend)


def test_levels_are_suggested():
    with pytest.raises(RuleError, match='a level: "drug=no", "drug=yes"'):
        term('feature "drug" increases "risk"', features=TABLE)


def test_what_was_not_given_is_told():
    for text, expected in (
        ('ignore feature "age"', "features, which were not given"),
        ('ignore region "corner"', "regions, which were not given"),
        ('feature "age" increases "risk"', "classes"),
    ):
        with pytest.raises(RuleError) as caught:
            rt.rules.parse(text).compile(**({"features": FEATURES} if "risk" in text else {}))
        assert expected in str(caught.value)


def test_a_class_that_the_model_does_not_have_is_told_when_it_is_read():
    with pytest.raises(ShapeError, match="a class that the model does not have"):
        penalty('feature "age" increases "c"', linear(W, W), inputs(), classes=["a", "b", "c"])


@pytest.mark.parametrize("present", [lambda inputs: inputs, lambda inputs: 1.0, lambda inputs: inputs[:2, 0] > 0])
def test_a_concept_that_counts_no_examples_is_told(present):
    with pytest.raises(ShapeError, match="a concept is present in examples"):
        penalty('ignore feature "x" when concept "c"', linear(W), inputs(), concepts={"c": present})


def test_what_is_in_a_file_gives_way_to_what_is_given(tmp_path):
    path = tmp_path / "rules.toml"
    path.write_text("rules = 'ignore group \"P\" for \"risk\"'\n[groups]\nP = ['age']\nQ = ['zip']", encoding="utf-8")
    rules = rt.rules.parse(path)
    for groups, expected in (({}, 9.0), ({"P": ["y"]}, 4.0), ({"Q": ["y"]}, 9.0)):
        (made,) = rules.compile(features=FEATURES, classes=CLASSES, groups=groups)
        found = rt.Objective(linear(W), F.cross_entropy, [made]).penalty(made, inputs(), torch.zeros(6).long()).detach()
        assert float(found) == pytest.approx(expected)

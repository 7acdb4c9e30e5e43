"""Discovery on tiny data: the other of two redundant features, stopping, resuming, refusing."""

import pytest
import torch
import torch.nn.functional as F
from torch import nn

import rightly as rt
from rightly.core.errors import ArgumentError, CheckpointError, RightlyError
from rightly.discovery import find_another_explanation, largest_gradient_mask
from rightly.discovery.question import Question
from rightly.discovery.scores import better_than_constant, default_score


def redundant(rows=200, seed=0, second=0.5):
    """Either of two features tells the label, the second one in smaller numbers; the third is noise."""
    draws = torch.Generator().manual_seed(seed)
    labels = (torch.rand(rows, generator=draws) > 0.5).long()
    side = (2 * labels - 1).float()
    noise = torch.randn(rows, generator=draws)
    return torch.stack([side, second * side, 0.1 * noise], 1), labels


class Linear(nn.Module):
    """The logit of a linear model that starts at zero, so that every gradient is w."""

    def __init__(self):
        super().__init__()
        self.w = nn.Parameter(torch.zeros(3))

    def forward(self, x):
        return (x @ self.w)[:, None]


def loss(outputs, labels):
    return F.binary_cross_entropy_with_logits(outputs[:, 0], labels.float())


def linear(seed):
    return Linear()


def search(factory=linear, train=None, own=None, **arguments):
    settings = {"epochs": 30, "batch_size": 50, "optimizer": "sgd", "lr": 0.3} | arguments
    return find_another_explanation(factory, own or loss, train or redundant(), **settings)


def mlp(seed):
    return rt.models.mlp(3, (8,), 2, seed=seed)


#: the penalty on the logit's own gradient is weight * w^2: convex, and steep enough at this rate
PULLED = {"output": "logit", "weight": 10.0, "lr": 0.05, "epochs": 100}
TOGETHER = {"factory": mlp, "own": F.cross_entropy, "method": "simultaneous", "optimizer": "adam", "lr": 1e-2}


def test_the_second_model_must_use_the_other_feature():
    found = search(validation=redundant(seed=1), **PULLED, models=2)
    first, second = (model.w.detach() for model in found.models)
    # plain: gradient descent from zero keeps w along (1, 1/2), so that only the first is above 0.67 of the largest
    assert float(first[1] / first[0]) == pytest.approx(0.5, abs=0.05)
    assert found.findings[0].marked == pytest.approx(1 / 3)
    assert abs(float(second[0])) < 0.05 * float(second[1])
    assert [finding.validation for finding in found.findings] == [1.0, 1.0]
    assert found.findings[1].repeated == 0
    assert found.findings[1].weight == 10.0
    assert float(found.overlap[0, 1]) == 0
    assert found.distinct == (0, 1)
    assert found.redundancy == 2
    assert found.stopped == "2 models were asked for"


def test_the_first_model_is_a_plain_training():
    found = search(mlp, own=F.cross_entropy, seed=5, models=2, weight=1.0)
    model = mlp(5)
    rt.fit(
        rt.Objective(model, F.cross_entropy, seed=5),
        redundant(),
        epochs=30,
        batch_size=50,
        optimizer="sgd",
        lr=0.3,
        seed=5,
    )
    for name, value in model.state_dict().items():
        assert torch.equal(value, found.models[0].state_dict()[name])
    assert found.findings[0].weight == 0
    assert found.findings[0].validation is None


def test_the_second_model_is_right_reasons_on_the_first_ones_mask():
    found = search(mlp, own=F.cross_entropy, models=2, weight=0.5)
    x, y = redundant()
    explained = rt.attribute(found.models[0], x, "gradient", output="prob", target="predicted").attributions
    marked = rt.Annotation(irrelevant=largest_gradient_mask(explained))
    seed = rt.core.seeding.mix(0, "model", 1) % 2**31
    model = mlp(seed)
    term = rt.recipes.right_for_the_right_reasons(0.5)
    settings = {"epochs": 30, "batch_size": 50, "optimizer": "sgd", "lr": 0.3, "seed": seed}
    rt.fit(rt.Objective(model, F.cross_entropy, [term], seed=seed), (x, y, marked), **settings)
    for name, value in model.state_dict().items():
        assert torch.equal(value, found.models[1].state_dict()[name])


def test_masks_add_up():
    """The third model is kept off both features that were marked before it, the fourth finds nothing new."""
    found = search(**{**PULLED, "weight": [10.0, 15.0]})
    assert float(found.models[2].w.detach().abs().max()) < 0.05 < 2.5 < float(found.models[1].w.detach()[1])
    assert [finding.weight for finding in found.findings] == [0.0, 10.0, 15.0, 15.0]
    assert [finding.repeated for finding in found.findings] == [None, 0.0, 0.0, 1.0]
    assert found.stopped == "explanations stopped changing: 100% of what model 4 marks was marked before"


def test_a_fall_of_accuracy_stops_the_sequence():
    x, y = redundant()
    scores = iter([0.9, 0.9, 0.86, 0.84, 0.5])
    arguments = {**PULLED, "repeated": 2.0, "alike": 2.0, "epochs": 1, "score": lambda *_: next(scores)}
    found = search(train=(x, y), **arguments)
    assert found.stopped == "accuracy fell: 0.840 after 0.900"
    assert len(found.models) == 4


def test_a_single_reason_stops_the_sequence():
    x, y = redundant(second=0.0)
    found = search(train=(x[:, :1].expand(-1, 3) * torch.tensor([1.0, 0, 0]), y), weight=1e-3)
    assert found.stopped.startswith("explanations stopped changing: 100%")
    assert found.redundancy == 1


def test_likeness_stops_the_sequence_too():
    found = search(weight=1e-3, repeated=2.0)
    assert found.stopped.startswith("explanations stopped changing: mean cosine 1.00")


def test_models_trained_at_once_part_ways():
    pair = search(weight=1.0, epochs=60, **TOGETHER)
    alone = search(weight=0.0, epochs=60, **TOGETHER)
    assert float(pair.similarity[0, 1]) < 0.25 < 0.6 < float(alone.similarity[0, 1])
    assert [finding.train for finding in pair.findings] == [1.0, 1.0]
    assert pair.redundancy == 2
    assert alone.redundancy == 1
    assert pair.findings[0].run is pair.findings[1].run
    assert pair.findings[0].repeated is None


def test_three_at_once_in_the_space_of_a_layer():
    found = search(weight=0.1, models=3, space=rt.spaces.Layer("1"), **{**TOGETHER, "epochs": 3})
    assert len(found.models) == 3
    assert found.similarity.shape == found.overlap.shape == (3, 3)


class KilledError(Exception):
    pass


def killed_at(moment):
    """A callback that ends the process' work in the middle of the given training and epoch."""
    seen = []

    def callback(epoch, entry):
        seen.append(epoch)
        if len(seen) == moment:
            raise KilledError

    return callback


def same_bits(found, expected):
    for one, other in zip(found.models, expected.models, strict=True):
        for name, value in other.state_dict().items():
            assert torch.equal(one.state_dict()[name], value)
    assert [f.run.history for f in found.findings] == [f.run.history for f in expected.findings]
    assert [(f.weight, f.score, f.marked, f.repeated) for f in found.findings] == [
        (f.weight, f.score, f.marked, f.repeated) for f in expected.findings
    ]
    assert torch.equal(found.similarity, expected.similarity)
    assert found.stopped == expected.stopped


@pytest.mark.parametrize("method", ["sequential", "simultaneous"])
@pytest.mark.parametrize("moment", [2, 6])
def test_a_killed_discovery_goes_on_to_the_same_bits(tmp_path, method, moment):
    arguments = {**TOGETHER, "method": method, "epochs": 8 if method == "simultaneous" else 4, "weight": 0.5}
    arguments |= {"validation": redundant(seed=1), "models": 2}
    expected = search(**arguments)
    with pytest.raises(KilledError):
        search(**arguments, folder=tmp_path / "d", callback=killed_at(moment))
    with pytest.raises(ArgumentError, match="not empty"):
        search(**arguments, folder=tmp_path / "d")
    found = search(**arguments, folder=tmp_path / "d", resume=True)
    same_bits(found, expected)
    # what has ended is not trained again
    same_bits(search(**arguments, folder=tmp_path / "d", resume=True, callback=killed_at(1)), expected)


def test_another_discovery_is_not_continued(tmp_path):
    arguments = {"models": 2, "weight": 1.0, "epochs": 2}
    search(**arguments, folder=tmp_path / "d")
    for other in (
        {"weight": 2.0},
        {"cutoff": 0.5},
        {"seed": 1},
        {"lr": 0.1},
        {"train": (redundant()[0] + 1, redundant()[1])},
    ):
        with pytest.raises(CheckpointError, match="another discovery"):
            search(**{**arguments, **other}, folder=tmp_path / "d", resume=True)
    assert len(search(**{**arguments, "models": 3, "repeated": 2.0, "alike": 2.0}, folder=tmp_path / "e").models) == 3


def test_nothing_of_the_users_changes():
    x, y = redundant()
    before, state = (x.clone(), y.clone()), torch.get_rng_state()
    search(train=(x, y), models=2, weight=1.0, epochs=2)
    assert torch.equal(x, before[0])
    assert torch.equal(y, before[1])
    assert torch.equal(torch.get_rng_state(), state)


def noise(rows, seed):
    draws = torch.Generator().manual_seed(seed)
    return torch.randn(rows, 3, generator=draws), (torch.rand(rows, generator=draws) > 0.5).long()


@pytest.mark.parametrize("kind", ["classes", "values"])
def test_on_noise_no_model_counts(kind):
    """Labels that nothing foretells: models differ as much as one likes, and none of them is right."""
    counted = []
    for seed in range(6):
        data = [noise(rows, seed + rows) for rows in (200, 100)]
        arguments = {"factory": mlp, "own": F.cross_entropy}
        if kind == "values":
            data = [(x[:, :2], x[:, 2:]) for x, _ in data]
            arguments = {"factory": lambda seed: rt.models.mlp(2, (8,), 1, seed=seed), "own": F.mse_loss}
            arguments["output"] = "logit"
        train, held = data
        found = search(
            train=train, validation=held, models=3, repeated=2.0, alike=2.0, tolerance=1.0,
            **{**arguments, "epochs": 5, "optimizer": "adam", "lr": 1e-2},
        )  # fmt: skip
        counted += [finding.better for finding in found.findings]
        assert found.redundancy == sum(counted[-3:])
    assert len(counted) == 18
    assert sum(counted) <= 2  # each by chance with probability 0.023


def test_better_than_the_most_frequent_class_worked_out_by_hand():
    # of 100, 90 are of class 0; the model names 10 others, of which `right` are: it gains those and loses the others
    labels, trained = torch.tensor([0] * 90 + [1] * 10), torch.tensor([0, 0, 1])

    def named(right):
        outputs = torch.zeros(100, 2)
        outputs[:, 0] = 1
        outputs[90 : 90 + right, 1] = outputs[: 10 - right, 1] = 2
        return outputs

    # gain 2 right - 10 over examples, of squares 10: above two standard errors, 2 sqrt(10 - gain^2 / 100), from 9 on
    assert [better_than_constant(named(right), labels, trained) for right in (5, 8, 9, 10)] == [
        False,
        False,
        True,
        True,
    ]
    assert not better_than_constant(torch.tensor([[1.0, 0.0]]).expand(100, 2), labels, trained)
    # the answer is that of the training labels, whatever is frequent here
    assert better_than_constant(torch.tensor([[1.0, 0.0]]).expand(100, 2), labels, 1 - trained)
    # one-hot labels and a single output say the same
    hot = F.one_hot(labels).float()
    assert better_than_constant(named(9), hot, F.one_hot(trained).float())
    assert better_than_constant(2 * (named(9).argmax(1)[:, None]) - 1.0, labels, trained)


def test_better_than_the_mean_worked_out_by_hand():
    # each prediction takes the share 1 - (1 - c)^2 off an error of 1: no spread, so anything above nothing is more
    labels, trained = torch.tensor([[-1.0], [1.0]] * 5), torch.tensor([[-2.0], [2.0]])
    assert better_than_constant(0.1 * labels, labels, trained)
    assert not better_than_constant(-0.1 * labels, labels, trained)
    assert not better_than_constant(0 * labels, labels, trained)
    # one of the ten is far off: gain (9 - 3) / 10, spread 1.2, standard error 0.38
    outputs = labels.clone()
    outputs[0] = 1
    assert not better_than_constant(outputs, labels, trained)
    outputs[0] = 0
    assert better_than_constant(outputs, labels, trained)


def test_inputs_go_where_the_model_is(monkeypatch):
    """No other device is here: the data are told where a model is said to be."""
    seen = []

    def placed(inputs, device):
        seen.append(device)
        return inputs

    monkeypatch.setattr("rightly.discovery.question.placed", placed)
    monkeypatch.setattr("rightly.discovery.question.device_of", lambda model: "there")
    search(models=2, weight=1.0, epochs=1)
    assert seen
    assert set(seen) == {"there"}
    seen.clear()
    Question._outputs(Linear(), *redundant())
    assert seen == ["there"]


def test_values_are_scored_by_their_explained_variance():
    x, y = redundant()
    found = search(
        train=(x, 3.0 * y.float()),
        own=lambda o, v: F.mse_loss(o[:, 0], v),
        output="logit",
        models=2,
        weight=1.0,
        lr=0.05,
    )
    outputs = found.models[0](x)[:, 0].detach()
    truth = 3.0 * y.float()
    expected = 1 - float(((outputs - truth) ** 2).sum() / ((truth - truth.mean()) ** 2).sum())
    assert found.findings[0].train == pytest.approx(expected, rel=1e-5)
    own = search(models=2, weight=1.0, epochs=1, score=lambda outputs, labels: 0.25)
    assert own.findings[0].train == 0.25


BAD = {
    "an unknown method": ({"method": "parallel"}, "unknown method"),
    "one model": ({"models": 1}, "models counts"),
    "a weight below zero": ({"weight": -1.0}, "weight"),
    "no weight": ({"weight": []}, "weights"),
    "many weights at once": ({"weight": [1.0, 2.0], "method": "simultaneous"}, "weights"),
    "a cutoff above one": ({"cutoff": 1.5}, "cutoff"),
    "a tolerance below zero": ({"tolerance": -0.1}, "tolerance"),
    "no likeness": ({"alike": float("nan")}, "alike"),
    "an unknown output": ({"mask_output": "logits"}, "unknown output"),
    "a loader": ({"train": [redundant()]}, "in memory"),
    "an annotation": ({"train": (*redundant(), rt.Annotation(irrelevant=torch.ones(1, 3)))}, "right_for_the_right"),
    "labels of another length": ({"train": (torch.ones(4, 3), torch.ones(3))}, "as many labels"),
    "validation in batches": ({"validation": [redundant()]}, "validation"),
    "nothing to resume": ({"resume": True}, "resume"),
    "no models": ({"factory": lambda seed: seed}, "model_factory"),
    "epochs": ({"epochs": 0}, "epochs"),
}


@pytest.mark.parametrize("case", BAD)
def test_what_cannot_be_used_is_refused(case):
    arguments, words = BAD[case]
    with pytest.raises(RightlyError, match=words):
        search(**arguments)


@pytest.mark.parametrize("method", ["sequential", "simultaneous"])
def test_a_loss_with_a_state_is_each_models_own(method):
    x, y = redundant()
    loss, groups = rt.GroupDRO(2, step=0.5), rt.with_groups(y, (torch.arange(200) < 20).long())
    arguments = {"method": method, "models": 2, "weight": 0.0, "output": "log_prob_sum", "epochs": 3}
    found = search(mlp, train=(x, groups), own=loss, repeated=2.0, alike=2.0, tolerance=1.0, **arguments)
    assert torch.equal(loss.weights, rt.GroupDRO(2).weights)
    if method == "sequential":
        seed = rt.core.seeding.mix(0, "model", 1) % 2**31
        settings = {"epochs": 3, "batch_size": 50, "optimizer": "sgd", "lr": 0.3, "seed": seed}
        alone = mlp(seed)
        rt.fit(rt.Objective(alone, rt.GroupDRO(2, step=0.5), seed=seed), (x, groups), **settings)
        for name, value in alone.state_dict().items():
            assert torch.allclose(value, found.models[1].state_dict()[name], atol=1e-6)


def test_one_hot_labels_are_scored_like_class_numbers():
    x, y = redundant()
    plain, one_hot = (
        search(mlp, train=(x, labels), own=F.cross_entropy, models=2, weight=1.0, epochs=2, lr=0.01)
        for labels in (y, F.one_hot(y, 2).float())
    )
    assert [f.train for f in plain.findings] == pytest.approx([f.train for f in one_hot.findings], abs=0.02)
    outputs, labels = torch.eye(3)[[0, 1, 2, 0]], torch.eye(3)[[0, 1, 1, 2]]
    assert default_score(outputs, labels) == 0.5


def test_several_values_are_scored_by_their_mean_explained_variance():
    draws = torch.Generator().manual_seed(0)
    outputs, labels = torch.randn(2, 50, 3, generator=draws)
    columns = [default_score(outputs[:, k], labels[:, k]) for k in range(3)]
    assert default_score(outputs, labels) == pytest.approx(sum(columns) / 3, rel=1e-5)
    assert default_score(outputs, rt.with_groups((labels[:, 0] > 0).long(), torch.zeros(50).long())) == pytest.approx(
        float((outputs.argmax(1) == (labels[:, 0] > 0)).double().mean())
    )


UNSCORED = {
    "several classes at once": torch.tensor([[1.0, 1.0], [0.0, 1.0]]).repeat(100, 1),
    "shares of classes": torch.tensor([[0.25, 0.75], [0.5, 0.5]]).repeat(100, 1),
    "three whole numbers": torch.ones(200, 3).long(),
    "maps": torch.rand(200, 2, 2),
    "values beside two outputs": torch.linspace(-1, 1, 200),
    "three classes beside two outputs": torch.eye(3)[torch.arange(200) % 3],
}


@pytest.mark.parametrize("case", UNSCORED)
def test_labels_that_cannot_be_scored_are_refused_before_training(case):
    def fail(outputs, labels):
        raise AssertionError("training began")

    with pytest.raises(ArgumentError, match="score="):
        search(mlp, train=(redundant()[0], UNSCORED[case]), own=fail)


def first_output(outputs, labels):
    return outputs[:, 0]


def test_what_makes_a_discovery_is_told_from_another(tmp_path):
    def made():
        return lambda outputs, labels: outputs[:, 0]

    arguments = {"factory": mlp, "own": F.cross_entropy, "models": 2, "weight": 1.0, "epochs": 1}
    arguments |= {"mask_output": made(), "output": made(), "space": rt.spaces.Layer("0")}
    arguments |= {"validation": redundant(seed=1), "folder": tmp_path / "d"}
    search(**arguments)
    # a function made again is the same one
    search(**{**arguments, "mask_output": made(), "output": made()}, resume=True)
    for other in (
        {"space": rt.spaces.Layer("1")},
        {"validation": redundant(seed=2)},
        {"validation": None},
        {"output": first_output},
        {"mask_output": first_output},
    ):
        with pytest.raises(CheckpointError, match="another discovery"):
            search(**{**arguments, **other}, resume=True)

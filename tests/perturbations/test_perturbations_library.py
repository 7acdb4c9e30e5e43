"""Attacks of another library, behind our interface; and several attacks as one."""

import random
import sys

import numpy as np
import pytest
import torch
from torch import nn

from contracts.problems import draws
from contracts.unchanged import check_unchanged
from perturbations.test_perturbations import network, pictures
from rightly.core.errors import ArgumentError, MissingExtraError, ShapeError
from rightly.perturbations import FGSM, JSMA, PGD, AutoPGD, FirstToFool, Noise, Square, auto_attack, unsaturated

LIBRARY = {
    "jsma": JSMA(0.5, 0.2, clip=(0, 1)),
    "apgd": AutoPGD(0.1, steps=4, clip=(0, 1)),
    "apgd on logits": AutoPGD(0.1, "difference_logits_ratio", steps=4, clip=(0, 1)),
    "square": Square(0.1, steps=8, clip=(0, 1)),
}


def weights(rows):
    model = nn.Linear(len(rows[0]), len(rows), bias=False)
    with torch.no_grad():
        model.weight.copy_(torch.tensor(rows))
    return model


@pytest.mark.parametrize("name", LIBRARY)
def test_the_librarys_attacks_keep_to_the_interface(name):
    pytest.importorskip("art")
    inputs, labels, region = pictures(dtype=torch.float32)
    inside = torch.zeros_like(region)
    inside[..., 1:, :] = 1
    inside = inside.repeat(5, 1, 1, 1)
    inside[1, :, 1] = 0
    model = network(torch.float32)
    for parameter in model.parameters():
        parameter.grad = torch.ones_like(parameter)
    numpy_state, python_state = np.random.get_state()[1].copy(), random.getstate()  # noqa: NPY002
    changed = check_unchanged(
        lambda: LIBRARY[name](model, inputs, labels, inside=inside), model, [inputs, labels, inside]
    )
    assert (np.random.get_state()[1] == numpy_state).all()  # noqa: NPY002
    assert random.getstate() == python_state
    assert torch.equal(changed, LIBRARY[name](model, inputs, labels, inside=inside))
    assert torch.equal(changed[inside == 0], inputs[inside == 0])
    assert not torch.equal(changed, inputs)
    assert ((changed >= 0) & (changed <= 1)).all()
    if name != "jsma":
        assert (changed - inputs).abs().max() <= 0.1 + 1e-6
    else:
        assert ((changed != inputs).flatten(1).sum(1) <= 0.2 * 36 + 2).all()


def test_linear_optimum():
    """Two classes, z_1 - z_0 = 3 a - b + 0.5 c: no point of the ball is worse than where the signs point."""
    pytest.importorskip("art")
    model = weights([[0.0, 0, 0], [3, -1, 0.5]])
    inputs = 0.25 + 0.5 * torch.rand(6, 3, generator=draws(0))
    changed = AutoPGD(0.2, steps=30, clip=(0, 1))(model, inputs, torch.ones(6))
    fooled = model(changed).argmax(1) == 0
    optimum = inputs - 0.2 * torch.tensor([1.0, -1, 1])
    assert torch.equal(fooled, model(optimum).argmax(1) == 0)
    assert fooled.any()
    assert not fooled.all()


def test_jsma_takes_the_most_telling_pixels():
    pytest.importorskip("art")
    model = weights([[1.0, 0, 0, 0], [0, 5, 0.1, 0.1]])
    changed = JSMA(1.0, 0.5, targeted=1, clip=(0, 1))(model, torch.tensor([[0.9, 0.0, 0.0, 0.0]]), torch.tensor([0]))
    assert model(changed).argmax(1) == 1
    assert changed[0, 1] == 1


def test_an_absent_library_names_its_extra(monkeypatch):
    for name in [name for name in sys.modules if name.split(".")[0] == "art"]:
        monkeypatch.delitem(sys.modules, name)
    monkeypatch.setitem(sys.modules, "art", None)
    monkeypatch.setattr("importlib.import_module", _absent)
    inputs, labels, _ = pictures(dtype=torch.float32)
    with pytest.raises(MissingExtraError, match="attacks"):
        LIBRARY["square"](network(torch.float32), inputs, labels)


def _absent(name):
    raise ModuleNotFoundError(f"No module named {name!r}", name=name)


@pytest.mark.parametrize(
    ("wrong", "said"),
    [
        (lambda: JSMA(), "clip"),
        (lambda: JSMA(targeted=None, clip=(0, 1)), "next"),
        (lambda: AutoPGD(0.1), "clip"),
        (lambda: AutoPGD(0.1, "hinge", clip=(0, 1)), "difference_logits_ratio"),
        (lambda: AutoPGD(-0.1, clip=(0, 1)), "eps"),
        (lambda: Square(0.1), "clip"),
        (lambda: Square(0.1, steps=0, clip=(0, 1)), "steps"),
        (lambda: LIBRARY["square"](lambda x: x, torch.ones(2, 3), torch.ones(2)), "module"),
        (lambda: LIBRARY["square"](nn.Linear(3, 2), torch.ones(2, 3)), "labels"),
        (lambda: FirstToFool(()), "at least one"),
        (lambda: FirstToFool((FGSM,)), "at least one"),
        (lambda: FirstToFool((Noise(1),))(nn.Linear(3, 2), torch.ones(2, 3)), "labels"),
    ],
)
def test_bad_arguments_are_named(wrong, said):
    with pytest.raises(ArgumentError, match=said):
        wrong()


def test_single_outputs_are_refused_by_the_library():
    with pytest.raises(ShapeError, match="class scores"):
        LIBRARY["square"](nn.Linear(3, 1), torch.ones(2, 3), torch.ones(2))


# ---- several as one


@pytest.mark.parametrize("logits", ["several", "one"])
def test_right_under_all_of_them(logits):
    """The share that survives the ensemble is that which survives every attack."""
    inputs, labels, _ = pictures(40)
    model = network().eval()
    if logits == "one":
        labels = labels.clamp(max=1)
        model = nn.Sequential(model, nn.Linear(3, 1, bias=False).double())
        with torch.no_grad():
            model[1].weight.copy_(torch.tensor([[1.0, -1, 0.5]]))

    def survives(attack):
        outputs = model(attack(model, inputs, labels))
        return (outputs.argmax(1) if logits == "several" else (outputs[:, 0] > 0).long()) == labels

    parts = (Noise(0.2), FGSM(0.05, targeted=0), FGSM(0.02))
    alone = [survives(part) for part in (parts[1], parts[2])]
    together = survives(FirstToFool(parts[1:]))
    assert torch.equal(together, alone[0] & alone[1])
    assert together.sum() < min(part.sum() for part in alone)
    assert survives(FirstToFool(parts)).sum() <= together.sum()


def test_the_first_that_fools_is_kept():
    inputs, labels, _ = pictures(20)
    model = network().eval()
    first, last = FGSM(0.01), FGSM(0.3)
    found = FirstToFool((first, last))(model, inputs, labels)
    one, two = first(model, inputs, labels), last(model, inputs, labels)
    fooled = model(one).argmax(1) != labels
    assert fooled.any()
    assert not fooled.all()
    assert torch.equal(found, torch.where(fooled[:, None, None, None], one, two))


def test_what_fools_only_outside_the_range_does_not_count():
    """The first attack fools by leaving the range; put back into it, the example is right, and the second is tried."""
    model = nn.Linear(1, 1, bias=False)
    with torch.no_grad():
        model.weight.fill_(1.0)
    inputs, labels = torch.tensor([[0.5]]), torch.tensor([1])

    def within(eps):
        return FirstToFool((FGSM(1.0), FGSM(eps)), clip=(0.1, 1.0))(model, inputs, labels)

    assert torch.equal(within(0.2), torch.tensor([[0.3]]))
    assert model(within(0.2)) > 0
    # an attack that keeps to the range itself is as before
    found = FirstToFool((FGSM(1.0), FGSM(0.2)), clip=(-1.0, 1.0))(model, inputs, labels)
    assert torch.equal(found, torch.tensor([[-0.5]]))


@pytest.mark.parametrize("library", [False, True])
def test_the_ensemble_is_at_least_as_strong_as_its_parts(library):
    if library:
        pytest.importorskip("art")
    inputs, labels, _ = pictures(12, dtype=torch.float32)
    model = network(torch.float32).eval()
    ensemble = auto_attack(0.05, (0, 1), library=library)
    changed = ensemble(model, inputs, labels)
    survived = model(changed).argmax(1) == labels
    single = model(PGD(0.05, steps=20, clip=(0, 1))(model, inputs, labels)).argmax(1) == labels
    assert not (survived & ~single).any()
    assert (changed - inputs).abs().max() <= 0.05 + 1e-6
    assert len(ensemble.attacks) == (5 if library else 2)


def test_the_unsaturated_loss_points_where_cross_entropy_does():
    inputs, labels, _ = pictures()
    model = network().eval()
    assert torch.equal(FGSM(0.1)(model, inputs, labels), FGSM(0.1, output=unsaturated)(model, inputs, labels))
    single = nn.Sequential(model, nn.Linear(3, 1).double())
    found = [FGSM(0.1, output=output)(single, inputs, labels.clamp(max=1)) for output in ("loss", unsaturated)]
    assert torch.equal(*found)
    # where the model is sure, only one of them still points anywhere
    sure = nn.Sequential(model, nn.Linear(3, 3, bias=False).double())
    with torch.no_grad():
        sure[1].weight.copy_(1e7 * torch.eye(3))
    answers = sure(inputs).argmax(1)
    assert torch.equal(FGSM(0.1)(sure, inputs, answers), inputs)
    moved = FGSM(0.1, output=unsaturated)(sure, inputs, answers)

    def lead(outputs, labels):
        """What is left of it there: the best of the others against the label."""
        own = torch.nn.functional.one_hot(labels, 3).bool()
        return outputs.masked_fill(own, -torch.inf).amax(1) - outputs[own]

    torch.testing.assert_close(moved, FGSM(0.1, output=lead)(model, inputs, answers))
    with pytest.raises(ArgumentError, match="labels"):
        unsaturated(torch.ones(2, 3), None)

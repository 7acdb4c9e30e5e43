"""Regions, targets, signs, sparsity and what all priors share."""

import pytest
import torch
from torch import nan

import rightly as rt
from contracts import oracles
from contracts.problems import components, normal, prior_of
from rightly.core.errors import AnnotationError, ArgumentError, ShapeError
from rightly.functional import energy, irrelevant, l1, l2, match_targets, sign, sparsity

PHI = torch.tensor([[1.0, -2.0, 3.0], [0.5, 0.0, -4.0]], dtype=torch.float64)


def test_norms():
    assert l1(PHI).tolist() == [6.0, 4.5]
    assert l2(PHI).tolist() == [14.0, 16.25]


def test_irrelevant_counts_what_is_marked():
    marked = torch.tensor([[1.0, 0.0, 1.0], [0.0, 1.0, 0.5]], dtype=torch.float64)
    assert irrelevant(PHI, marked).tolist() == [10.0, 4.0]  # (0.5 * 4)^2
    assert irrelevant(PHI, marked, "l1").tolist() == [4.0, 2.0]


def test_irrelevant_of_one_annotation_for_all():
    prior = rt.priors.Irrelevant()
    assert prior(PHI, rt.Annotation(irrelevant=torch.tensor([[False, False, True]]))).tolist() == [9.0, 16.0]
    assert prior(PHI, rt.Annotation(irrelevant=[None, torch.tensor([1.0, nan, 0.0])])).tolist() == [0.0, 0.25]


def test_energy_is_the_share_outside():
    inside = torch.tensor([[1.0, 0.0, 0.0], [0.0, 0.0, 1.0]], dtype=torch.float64)
    assert energy(PHI, inside).tolist() == [0.75, 1.0]  # of what speaks for it: 3 of 4; 0.5 of 0.5
    assert torch.allclose(energy(PHI, inside, positive=False), torch.tensor([5 / 6, 0.5 / 4.5]).double(), atol=1e-7)
    assert not energy(torch.zeros(2, 3), inside).any()
    assert not energy(-torch.ones(2, 3), inside).any()


def test_energy_asks_nothing_of_what_is_unknown():
    prior = rt.priors.Energy(positive=False)
    note = rt.Annotation(relevant=torch.tensor([[1.0, nan, 0.0], [nan, nan, nan]]))
    assert prior(PHI, note).tolist() == [0.5, 0.0]


def test_energy_does_not_care_about_scale():
    inside = torch.tensor([[1.0, 0.0, 0.0]]).double()
    for scale in (1e-30, 1.0, 1e30):
        assert torch.allclose(energy(PHI * scale, inside), energy(PHI, inside), rtol=1e-12)


def test_match_targets_ignores_what_is_unknown():
    prior = rt.priors.MatchTargets()
    targets = torch.tensor([[1.0, nan, 1.0], [nan, nan, nan]], dtype=torch.float64)
    assert prior(PHI, rt.Annotation(targets=targets)).tolist() == [4.0, 0.0]
    assert rt.priors.MatchTargets("l1")(PHI, rt.Annotation(targets=targets)).tolist() == [2.0, 0.0]
    assert match_targets(PHI, PHI, torch.ones_like(PHI, dtype=torch.bool)).tolist() == [0.0, 0.0]


def test_signs():
    assert sign(PHI, torch.tensor([1.0, 1.0, -1.0])).tolist() == [5.0, 0.0]
    assert rt.priors.Sign([1, 0, 0])(PHI).tolist() == [0.0, 0.0]
    per_class = rt.priors.Sign(torch.tensor([[1, 1, 1], [-1, -1, -1]]), per_class=True)
    assert per_class(PHI, None, torch.tensor([0, 1])).tolist() == [2.0, 0.5]


def test_signs_per_class_meet_their_own_example():
    """(classes, H, W) on (B, C, H, W) with B = C: plain broadcasting would take examples for channels."""
    signs = torch.stack([torch.ones(2, 2), -torch.ones(2, 2)])
    phi = torch.stack([torch.ones(2, 2, 2), -torch.ones(2, 2, 2)])
    prior = rt.priors.Sign(signs, per_class=True)
    assert prior(phi, None, torch.tensor([0, 1])).tolist() == [0.0, 0.0]
    assert prior(phi, None, torch.tensor([1, 0])).tolist() == [8.0, 8.0]


@pytest.mark.parametrize("signs", [torch.ones(3), torch.ones(1, 3), torch.ones(2, 1), torch.tensor(1.0)])
def test_signs_broadcast_over_features_only(signs):
    assert rt.priors.Sign(signs)(normal(4, 2, 3, seed=1)).shape == (4,)
    with pytest.raises(ShapeError):
        rt.priors.Sign(torch.ones(4, 2, 3))(normal(1, 2, 3, seed=1))


def test_sparsity_is_of_the_global_importances():
    phi = normal(5, 2, 3, seed=2)
    assert float(sparsity(phi)) == pytest.approx(oracles.sparsity(phi), abs=1e-12)
    assert float(sparsity(-3 * phi)) == pytest.approx(float(sparsity(phi)), abs=1e-12)
    lone = torch.zeros(4, 10, dtype=torch.float64)
    lone[:, 3] = torch.tensor([1.0, -2.0, 3.0, -4.0])
    assert float(sparsity(lone)) == pytest.approx(1 / 10)
    assert float(sparsity(torch.ones(4, 10))) == pytest.approx(1)


@pytest.mark.parametrize("entry", components("prior"), ids=lambda e: e.name)
def test_levels_and_reprs(entry):
    prior = prior_of(entry, (1, 3, 4))
    assert prior.level in ("example", "batch")
    assert repr(prior).startswith(entry.cls.__name__ + "(")
    assert set(prior.needs) <= {"relevant", "irrelevant", "regions", "targets"}


@pytest.mark.parametrize("entry", [e for e in components("prior") if e.cls.needs], ids=lambda e: e.name)
def test_priors_say_which_annotation_they_need(entry):
    prior = prior_of(entry, (3,))
    with pytest.raises(AnnotationError, match=prior.needs[0]):
        prior(PHI)


def test_what_a_penalty_returns_is_checked():
    class Half(rt.priors.Prior):
        def penalty(self, attributions, annotation, target):
            return attributions.sum()

    with pytest.raises(ShapeError, match="level 'example'"):
        Half()(PHI)
    Half.level = "batch"
    assert Half()(PHI).shape == ()
    with pytest.raises(ShapeError, match="need features"):
        Half()(PHI[0])
    with pytest.raises(ArgumentError, match="are a tensor"):
        Half()(PHI.numpy())

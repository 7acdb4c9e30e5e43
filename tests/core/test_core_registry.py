"""The one list of components."""

import pytest

import rightly as rt
from rightly.core import registry
from rightly.core.errors import ArgumentError


@pytest.mark.parametrize(
    ("name", "expected"),
    [
        ("InputXGradient", "input_x_gradient"),
        ("L1", "l1"),
        ("GradCam", "grad_cam"),
        ("IntegratedGradients", "integrated_gradients"),
        ("already_snake", "already_snake"),
        ("HTMLPage", "html_page"),
        ("A2B", "a2_b"),
    ],
)
def test_snake_case(name, expected):
    assert registry.snake_case(name) == expected


@pytest.mark.parametrize(
    "name", ["ExpectedGradients", "expected_gradients", "expected-gradients", "Expected-Gradients"]
)
def test_names_are_found_however_they_are_written(name):
    assert registry.find("attribution", name).cls is rt.ExpectedGradients


def test_an_unknown_name_shows_the_known_ones():
    with pytest.raises(ArgumentError, match="expected_gradients"):
        registry.find("attribution", "expected")


def test_entries_say_what_they_are():
    entry = registry.find("prior", "sparsity")
    assert entry.family == "prior"
    assert (
        entry.summary
        == "A few features should carry the model: 1 - Gini coefficient of the global importances (mean |phi|)."
    )
    assert entry.citation in registry.CITATIONS
    assert registry.name_of(rt.priors.Sparsity()) == "sparsity"


def test_everything_cites_the_bibliography():
    for family in ("space", "reference", "attribution", "prior"):
        for entry in registry.family(family).values():
            assert entry.citation in registry.CITATIONS
            assert entry.traits <= registry.TRAITS


def test_a_name_is_given_once():
    with pytest.raises(ArgumentError, match="already a prior called sparsity"):
        registry.register("prior", citation="erion2021")(type("Sparsity", (), {}))
    assert registry.find("prior", "sparsity").cls is rt.priors.Sparsity


def test_families_do_not_mix():
    assert "gradient" not in registry.family("prior")
    assert set(registry.family("space")) >= {"input", "layer"}

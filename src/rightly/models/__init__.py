"""The papers' reference networks."""

from rightly.models.networks import mlp, paper_cnn

__all__ = ["mlp", "paper_cnn"]

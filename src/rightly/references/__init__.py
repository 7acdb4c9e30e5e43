"""What "not knowing a feature" means: the values that stand in for it."""

from rightly.references.blur import Blur
from rightly.references.constant import Constant
from rightly.references.in_batch import InBatch
from rightly.references.noise import Noise
from rightly.references.sample import Sample, Where

__all__ = ["Blur", "Constant", "InBatch", "Noise", "Sample", "Where"]

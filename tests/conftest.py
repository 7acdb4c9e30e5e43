"""Settings for all tests: one thread, and drawn examples that are the same in every run."""

import torch
from hypothesis import settings

torch.set_num_threads(1)
settings.register_profile("rightly", deadline=None, derandomize=True, max_examples=40, print_blob=True, database=None)
settings.load_profile("rightly")

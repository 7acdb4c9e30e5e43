"""Changed inputs: noise, gradient steps, occlusion, whole or inside a region; for training and for attacks."""

__all__: list[str] = []

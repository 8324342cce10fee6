"""What is trained before a distillation: a classifier for embeddings, experts, a GAN, a diffusion prior.

Each is a builder, a frozen dataclass of its settings with `start`, `step` and `finish`; a method names those that it
needs, and the store makes each of them once.
"""

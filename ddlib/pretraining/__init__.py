"""What is trained before a distillation: a classifier for embeddings, experts, a GAN, a diffusion prior.

Each is built by a `Prerequisite`; a method names those that it needs, and the store makes each of them once.
"""

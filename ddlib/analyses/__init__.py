"""Experiments that are no table of accuracies: architecture search, continual learning, costs of a step, gradients."""

"""Notebooks run in bulk: `reproduce` on one machine, `workflow` on several GPUs or a cluster, `cli` the command."""

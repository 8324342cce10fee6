"""What is measured beside the accuracies of a notebook's cells.

`architecture_search` trains many networks on distilled sets and ranks them; `continual` lets classes come in steps;
`costs` is the time and memory of a gradient and of a method's step; `gradients` are norms of terms of losses; `samples`
looks at a generator's images.  Each gives rows of plain values, for `study.measured` to keep.  `judge` gives records
of a set that others made.
"""

"""What is made once and kept: files that are whole, locks, the loop with its checkpoints, and where each thing lies.

Nothing here knows what is distilled.  `pieces.product` gives a piece of work, from its folder or made now; `loop.run`
repeats a step, with checkpoints; `files` and `tensors` read and write, with checksums; `inventory` lists and removes;
`provenance` and `codeprint` say by what code, versions and device a number was made.
"""

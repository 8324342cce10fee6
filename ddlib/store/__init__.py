"""What is made once and kept: files that are whole, locks, the loop with its checkpoints, and where each thing lies.

Nothing here knows what is distilled.  `artefacts.product` gives an artefact, from its folder or made now; `loop.run`
repeats a step, with checkpoints; `files` reads and writes, with checksums; `inventory` lists and removes;
`progress` says how far a piece of work is; `provenance` and `codeprint` by what code and versions a number was made.
"""

"""What is made once and kept.  Nothing here knows what is distilled.

An `artefacts.Artefact` is whatever is made once: a distilled set, what that needs beforehand, an evaluation.
`artefacts.get` gives its product, from the store or made now; `inventory` lists, checks and removes what lies there.

Underneath: `loop.run` repeats a step, with checkpoints, and is killed without loss; `artefacts.locked` lets one
process at a time work on an artefact; `files` writes whole or not at all and reads with checksums, and is all that
science rooms use of the store; `progress` says how far the work is and what memory it takes; `provenance` and
`codeprint` say by what code, versions and device a number was made.
"""

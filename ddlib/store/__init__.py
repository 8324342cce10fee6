"""What is made once and kept.  Nothing here knows what is distilled.

An `artefacts.Artefact` is whatever is made once: a distilled set, what that needs beforehand, an evaluation, the
training of one network of a search.  `artefacts.get` gives its product, from the store or made now;
`artefacts.status` and `artefacts.facts` say what is known of it; `inventory.entries`, `find` and `remove` are for
whoever tidies the store.

Underneath: `loop.run` repeats a step, with checkpoints, and is killed without loss; `locks` lets one process at a time
work on an artefact; `files` writes whole or not at all and reads with checksums, and is all that science rooms use of
the store; `progress` says how far the work is and what memory it takes; `provenance` and `codeprint` say by what code,
versions and device a number was made.
"""

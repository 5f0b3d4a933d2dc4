"""Searches as one compiled loop: no question returns to the host.

A search is a *machine*: a state of fixed shapes, `propose(state)`, which says what to ask next, and `digest(state,
answer)`, which takes the answer in. `engine` runs the machines of one or of several images to their end, `memory`
remembers what each was told, `reading` evaluates what is new in chunks that all images share. `groups` and `orders` are
the machines; they make the moves of their counterparts on the host, in the same order, and ask the same questions.
"""

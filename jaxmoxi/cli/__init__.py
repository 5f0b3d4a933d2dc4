"""The command `jaxmoxi`: `main` starts it, and every file is one of its commands but for these.

`shared`, `report` and `task` are what the commands share, `rates` is what `bench` measures by, `signals` is how a long
one ends, and `together` and `relay` are for several processes of one run.
"""

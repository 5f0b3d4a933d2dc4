"""The command `jaxmoxi`: `main` starts it, and every other file but `shared` and `report` is one of its commands."""

"""Published searches for orders, written here from their papers' descriptions: rivals of `jaxmoxi.search`.

Each is a plain function from a game to (order int[P], forward passes), with a budget of forward passes. A method that
is done early is done; one that is cut off completes its order by what it knows. A coalition that a method asks about
twice is counted once, which favours the rivals: their own code would evaluate it again.
"""

"""Parts of `robust.py`: the games that are searched and that judge, the methods, the tables, the figure."""

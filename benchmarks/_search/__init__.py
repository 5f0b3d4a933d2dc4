"""The parts of `search.py`: photos, methods, lines of JSON, tables, the figure."""

"""The project's scores as `evaluate` modules: each folder is one, for `evaluate.load(folder)`, and stands by itself.

In a folder, `scores.py` is what the tasks call; the file named like the folder is the same for `evaluate`. Imports in a
folder are relative, since `evaluate` copies the folder's files into its cache and imports them from there.
"""

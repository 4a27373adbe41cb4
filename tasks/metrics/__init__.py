"""The project's scores as `evaluate` modules: each folder is one, for `evaluate.load(folder)`, and stands by itself.

The file named like its folder holds the functions that the tasks call, and the same for `evaluate`, which copies that
file into its cache and imports it from there.
"""

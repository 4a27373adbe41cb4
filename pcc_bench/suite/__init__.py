"""`pcc-bench run`: a list of methods, their arguments and tasks, run cell by cell and resumed where it stopped."""

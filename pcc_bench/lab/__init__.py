"""The lab: the paper in miniature, really trained, so that every command gives true numbers on a laptop, offline."""

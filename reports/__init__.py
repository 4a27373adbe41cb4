"""Tables and figures: pure functions of result files, and the published numbers they are held against."""

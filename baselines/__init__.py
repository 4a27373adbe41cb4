"""Methods to compare PCC with, one file each; `controls` holds the floors and ceilings every table needs."""

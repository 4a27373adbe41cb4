"""`python -m pcc_bench.cli`, which `accelerate launch` needs."""

from pcc_bench.cli import main

if __name__ == "__main__":
    main()

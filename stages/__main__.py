"""`python -m stages`: the same as `seed`."""

from stages.cli import main

if __name__ == "__main__":
    main()

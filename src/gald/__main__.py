"""`python -m gald VERB ...` is the console script `gald VERB ...`."""

from gald.cli import main

if __name__ == "__main__":
    main()

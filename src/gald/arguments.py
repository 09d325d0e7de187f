"""The command line of the verbs that Hydra does not compose."""

import argparse
from typing import NoReturn


class Arguments(argparse.ArgumentParser):
    """A parser whose complaint is one sentence, worded by `gald.cli` as all others are."""

    def error(self, message: str) -> NoReturn:  # noqa: D102
        raise ValueError(f"{self.prog}: {message}; see {self.prog} --help")

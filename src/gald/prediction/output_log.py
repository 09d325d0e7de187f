"""A log of outputs: a repeated command skips what it made, and refuses to replace anything else."""

import hashlib
import json
from pathlib import Path

FILE = "predictions.jsonl"


class OutputLog:
    """Writes outputs into a folder, each whole or not at all, and logs what each was made from.

    The entry, a line of `predictions.jsonl`, is written just before the output takes its name. So
    an output with an entry is complete, and one without was made by something else.

    Args:
        folder: where outputs go.
    """

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.keys: dict[str, str] = {}
        log = folder / FILE
        for line in log.read_text(encoding="utf-8").splitlines() if log.is_file() else ():
            try:
                entry = json.loads(line)
                # Version 0.1.0 called the key a stamp.
                self.keys[entry["output"]] = entry["key"] if "key" in entry else entry["stamp"]
            except (ValueError, KeyError, TypeError):
                continue  # the line at which the power was cut; its output does not exist

    def has(self, output: str, *inputs: str) -> bool:
        """Whether an output exists that was made from exactly these inputs.

        Raises:
            ValueError: it was made from something else, and would be overwritten.
        """
        if not (self.folder / output).exists():
            return False
        if self.keys.get(output) != _key(inputs):
            raise ValueError(
                f"{self.folder / output} is there already, made from another file, by another "
                "network or with other options; choose another folder for --to"
            )
        return True

    def write(self, output: str, content: bytes, *inputs: str) -> None:
        """Write a file.

        Raises:
            OSError: the disk is full or cannot be written; what was finished before is kept.
        """
        partial = None
        try:
            partial = self.partial(output)
            partial.write_bytes(content)
            self.finish(output, *inputs)
        except OSError as error:
            if partial is not None:
                partial.unlink(missing_ok=True)
            raise OSError(
                f"cannot write {self.folder / output} ({error.strerror or error}); free some space "
                "and repeat the command, what is finished is kept"
            ) from error

    def partial(self, output: str) -> Path:
        """The path of an output until it is finished; its folder is made."""
        path = self.folder / output
        path.parent.mkdir(parents=True, exist_ok=True)
        return path.with_name(f"{path.stem}.part{path.suffix}")

    def finish(self, output: str, *inputs: str) -> None:
        """Give a partial output, file or folder, its name."""
        self.keys[output] = _key(inputs)
        entry = {"output": output, "input": inputs[0], "key": self.keys[output]}
        with (self.folder / FILE).open("a+b") as file:
            file.seek(max(0, file.tell() - 1))
            cut = file.read(1) not in (b"", b"\n")  # by a power cut
            file.write(b"\n" * cut + json.dumps(entry).encode() + b"\n")
        self.partial(output).replace(self.folder / output)


def _key(inputs: tuple[str, ...]) -> str:
    return hashlib.sha256(json.dumps(inputs).encode()).hexdigest()[:32]

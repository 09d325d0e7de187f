"""A log of outputs: repeated commands skip their own outputs and never replace other files."""

import hashlib
import json
import os
from pathlib import Path

from gald.errors import disk_remedy
from gald.run.atomic import sync, sync_tree
from gald.run.leftovers import clean_partial_outputs, partial_output

FILE = "predictions.jsonl"
_LINE = 2**16  # bytes, more than any line


class OutputLog:
    """Writer of complete outputs into a folder, with a log of the inputs of each.

    The log entry, a line of `predictions.jsonl`, is written just before the output is renamed to
    its final name. So an output with an entry is complete, and one without an entry is foreign.

    Args:
        folder: output folder.
    """

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.keys: dict[str, str] = {}
        log = folder / FILE
        clean_partial_outputs(folder)
        for line in log.read_bytes().splitlines() if log.is_file() else ():
            try:
                entry = json.loads(line)
                # Version 0.1.0 wrote the key as "stamp".
                self.keys[entry["output"]] = entry["key"] if "key" in entry else entry["stamp"]
            except (ValueError, KeyError, TypeError, RecursionError):
                continue  # a line that a power failure damaged; its output does not exist

    def has(self, output: str, *inputs: str) -> bool:
        """Return whether an output exists that was made from exactly these inputs.

        Raises:
            ValueError: it exists, but was made from other inputs.
        """
        if not (self.folder / output).exists():
            return False
        if self.keys.get(output) != _key(inputs):
            raise ValueError(
                f"{self.folder / output} already exists, made from another file, by another "
                "network or with other options; choose another --to"
            )
        return True

    def write(self, output: str, content: bytes, *inputs: str) -> None:
        """Write a file.

        Raises:
            OSError: the disk is full or cannot be written; earlier outputs are kept.
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
                f"cannot write {self.folder / output} ({error.strerror or error}); "
                f"{disk_remedy(error)} and repeat the command (finished outputs are kept)"
            ) from error

    def partial(self, output: str) -> Path:
        """Create the folder of an output and return the output's path until it is finished."""
        path = self.folder / output
        path.parent.mkdir(parents=True, exist_ok=True)
        return partial_output(path)

    def finish(self, output: str, *inputs: str) -> None:
        """Log a partial output, file or folder, and rename it to its final name."""
        partial, key = self.partial(output), _key(inputs)
        sync_tree(partial) if partial.is_dir() else sync(partial)
        if self.keys.get(output) != key:  # else a call was killed before it could rename
            self._log({"output": output, "input": inputs[0], "key": key})
            self.keys[output] = key
        partial.replace(self.folder / output)
        sync((self.folder / output).parent)

    def _log(self, entry: dict[str, str]) -> None:
        """Append an entry, in place of a line that was cut by a power failure."""
        log = self.folder / FILE
        with log.open("a+b") as file:
            start = max(0, file.tell() - _LINE)
            file.seek(start)
            tail = file.read()
            if not tail.endswith(b"\n"):
                file.truncate(start + tail.rfind(b"\n") + 1)
            file.write(json.dumps(entry).encode() + b"\n")
            file.flush()
            os.fsync(file.fileno())


def _key(inputs: tuple[str, ...]) -> str:
    return hashlib.sha256(json.dumps(inputs).encode()).hexdigest()[:32]

"""What was made of what: lets a repeated command skip what is there, and refuse what is not its."""

import hashlib
import json
from pathlib import Path

FILE = "predictions.jsonl"


class OutputLog:
    """Writes outputs into a folder, each whole or not at all, and notes what each was made of.

    The note, a line of `predictions.jsonl`, is written just before the output takes its name. So an
    output with its note is complete, and one without was made by somebody else.

    Args:
        folder: where outputs go.
    """

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.keys: dict[str, str] = {}
        notes = folder / FILE
        for line in notes.read_text(encoding="utf-8").splitlines() if notes.is_file() else ():
            try:
                note = json.loads(line)
                self.keys[note["output"]] = note["stamp"]
            except (ValueError, KeyError, TypeError):
                continue  # the line at which the power was cut; its output does not exist

    def has(self, output: str, *made_of: str) -> bool:
        """Whether an output exists that was made of just this.

        Raises:
            ValueError: it was made of something else, and would be overwritten.
        """
        if not (self.folder / output).exists():
            return False
        if self.keys.get(output) != _key(made_of):
            raise ValueError(
                f"{self.folder / output} is there already, made from another file, by another "
                "network or with other options; choose another folder for --to"
            )
        return True

    def write(self, output: str, content: bytes, *made_of: str) -> None:
        """Write a file.

        Raises:
            OSError: the disk is full or cannot be written; what was finished before is kept.
        """
        partial = None
        try:
            partial = self.partial(output)
            partial.write_bytes(content)
            self.finish(output, *made_of)
        except OSError as error:
            if partial is not None:
                partial.unlink(missing_ok=True)
            raise OSError(
                f"cannot write {self.folder / output} ({error.strerror or error}); free some space "
                "and repeat the command, what is finished is kept"
            ) from error

    def partial(self, output: str) -> Path:
        """What an output is called until it is finished; its folder is made."""
        path = self.folder / output
        path.parent.mkdir(parents=True, exist_ok=True)
        return path.with_name(f"{path.stem}.part{path.suffix}")

    def finish(self, output: str, *made_of: str) -> None:
        """Give a partial output, file or folder, its name."""
        self.keys[output] = _key(made_of)
        note = {"output": output, "made_of": made_of[0], "stamp": self.keys[output]}
        with (self.folder / FILE).open("a+b") as file:
            file.seek(max(0, file.tell() - 1))
            cut = file.read(1) not in (b"", b"\n")  # by a power cut
            file.write(b"\n" * cut + json.dumps(note).encode() + b"\n")
        self.partial(output).replace(self.folder / output)


def _key(made_of: tuple[str, ...]) -> str:
    return hashlib.sha256(json.dumps(made_of).encode()).hexdigest()[:32]

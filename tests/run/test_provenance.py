"""What a run stores of its origin."""

import hashlib
import re
import shutil
import subprocess
import sys
from pathlib import Path

import torch

from gald.run import provenance
from gald.run.provenance import digest_tensors

COMMIT = "import provenance; print(provenance.commit())"


def test_commit_is_that_of_the_code_and_says_whether_files_changed(tmp_path):
    def git(*words):
        me = ["-c", "user.name=me", "-c", "user.email=me@example.com"]
        subprocess.run(["git", *me, *words], cwd=tmp_path, check=True, capture_output=True)

    def commit():
        done = subprocess.run(
            [sys.executable, "-c", COMMIT], cwd=tmp_path, capture_output=True, text=True, check=True
        )
        return done.stdout.strip()

    code = tmp_path / "provenance.py"
    shutil.copy(Path(provenance.__file__), code)
    assert commit() == "None", "no checkout"
    git("init", "-q")
    git("commit", "--allow-empty", "-qm", "theirs")
    assert commit() == "None", "a copy in the checkout of another project"
    git("add", code.name)
    git("commit", "-qm", "ours")
    assert re.fullmatch("[0-9a-f]{12}", unchanged := commit())
    code.write_text(f"{code.read_text()}\n")
    assert commit() == f"{unchanged}+"


def test_hash_of_tensors_depends_on_names_types_shapes_and_values():
    def digest(name="a", value=None):
        found = hashlib.sha256()
        digest_tensors(found, {name: torch.zeros(2, 3) if value is None else value})
        return found.hexdigest()

    others = [
        digest("b"),
        digest(value=torch.zeros(3, 2)),
        digest(value=torch.zeros(2, 3).int()),
        digest(value=torch.eye(2, 3)),
    ]
    assert len({digest(), *others}) == 5
    assert digest() == digest(value=torch.zeros(3, 2).T)

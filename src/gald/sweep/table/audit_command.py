"""`gald sweep audit FOLDER`: do the cells differ in anything but the factors?"""

from pathlib import Path


def main(sweep: Path, /) -> int:
    """List differences between the cells of a sweep besides its factors; exit code 1 if any.

    Args:
        sweep: folder of a sweep, as gald train -m printed it
    """
    from gald.sweep.table.consistency import audit

    findings = audit(sweep)
    for finding in findings:
        print(f"warning: {finding}")
    if not findings:
        print("only the declared factors differ")
    return 1 if findings else 0

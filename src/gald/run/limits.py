"""Bounds on what files may contain; an environment variable raises each of them."""

import os

# By environment variable; docs/datasets.md says what each of them is about.
BOUNDS = {
    "GALD_MAX_MEGAPIXELS": 200,
    "GALD_MAX_FILE_MB": 2000,
    "GALD_MAX_YAML_MB": 1,
    "GALD_MAX_YAML_VALUES": 50_000,
    "GALD_MAX_JSON_MB": 32,
    "GALD_MAX_NESTING": 100,
    "GALD_MAX_UNPACKED_MB": 64,
    "GALD_MAX_MEMBERS": 2_000_000,
    "GALD_MAX_FOLDERS": 32,
    "GALD_MAX_COUNTS": 1_000_000,
}


def limit(variable: str, default: int | None = None) -> int:
    """Return a bound: the value of its environment variable, or the default.

    Args:
        variable: one of `BOUNDS`.
        default: None is the one in `BOUNDS`.

    Raises:
        ValueError: the variable is not a whole number above 0.
    """
    text = os.environ.get(variable, "").strip()
    default = BOUNDS[variable] if default is None else default
    if not text:
        return default
    if not (text.isascii() and text.isdecimal() and int(text)):
        raise ValueError(
            f"{variable} is {text!r}; set it to a whole number above 0, e.g. {variable}={default}"
        )
    return int(text)


def refuse_above(
    found: int,
    subject: str,
    words: str,
    variable: str,
    unit: int = 1,
    remedy: str = "",
    default: int | None = None,
) -> None:
    """Raise a ValueError if a number is above its bound.

    Args:
        found: the number.
        subject: start of the sentence: the file, crop or window; any text.
        words: the sentence goes on with `{0}` for the number and `{1}` for the bound; without `{0}`
            the number is a part of the true one.
        variable: environment variable that sets the bound.
        unit: what 1 in the variable stands for.
        remedy: what else helps.
        default: the bound without the variable; None is the one in `BOUNDS`.
    """
    if found <= (bound := limit(variable, default)) * unit:
        return
    needed = -(-found // unit) if "{0}" in words else 10 * bound
    choice = f"{remedy}, or" if remedy else "if it is right,"
    raise ValueError(
        f"{subject} {words.format(found, bound)}; {choice} raise the bound with {variable}={needed}"
    )


def refuse_unpacked(unpacked: int, packed: int, what: str, remedy: str, whole: bool = True) -> None:
    """Raise a ValueError if packed content is too large: a megabyte can hold a terabyte of zeros.

    The bound is GALD_MAX_UNPACKED_MB; without it, a hundred times the file, and at least 64 MB.

    Args:
        unpacked: bytes of the content.
        packed: bytes of the file.
        what: the file.
        remedy: where to get the right one.
        whole: whether `unpacked` is all of it, or what was unpacked so far.
    """
    bound = max(BOUNDS["GALD_MAX_UNPACKED_MB"], 100 * packed // 10**6)
    holds = "holds {0}, and it may hold {1} MB" if whole else "holds more than {1} MB"
    words = f"has {packed} bytes but {holds}"
    refuse_above(unpacked, what, words, "GALD_MAX_UNPACKED_MB", 10**6, remedy, bound)


def refuse_pixels(height: int, width: int, what: str, remedy: str) -> None:
    """Raise a ValueError above GALD_MAX_MEGAPIXELS (200): 50 kB can decode to gigabytes.

    Args:
        height: in pixels.
        width: in pixels.
        what: the picture, crop or window.
        remedy: what makes it smaller.
    """
    words = f"is {width}x{height}, {{0}} pixels, and at most {{1}} million are taken"
    refuse_above(height * width, what, words, "GALD_MAX_MEGAPIXELS", 10**6, remedy)

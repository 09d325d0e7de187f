"""`gald modules`: the places of a host network where GA and LD fit."""

from gald.config import CONF_DIR, options_of


def main(
    host: str | None = None,
    /,
    *words: str,
    ga: str = "psp",
    ld: str = "affinity",
    size: tuple[int, int] = (512, 1024),
    all: bool = False,
) -> None:
    """List the places of a host network where GA and LD fit, with their cost there.

    Args:
        host: option of model/host, as unet; none lists them
        words: further words of gald train, as model.host.encoder=resnet50
        ga: option of model/ga
        ld: option of model/ld
        size: height and width of the image
        all: also show submodules of submodules
    """
    from rich.console import Console
    from rich.table import Table

    say = Console(markup=False, emoji=False).print
    if host is None:
        table = Table("host", "network", title="gald modules HOST lists its places")
        for path in sorted((CONF_DIR / "model" / "host").glob("*.yaml")):
            first = path.read_text(encoding="utf-8").partition("\n")[0]
            table.add_row(path.stem, first.removeprefix("# "))
        say(table)
        return
    for group, word in (("host", host), ("ga", ga), ("ld", ld)):
        known = options_of(f"model/{group}")
        if word not in known.split(", "):
            raise ValueError(f"there is no {group} {word!r}; choose one of {known}")
    if min(size) < 1:
        raise ValueError(f"--size is {size[0]} {size[1]}; choose a height and a width of 1 or more")
    from gald.profiling.places import places_table  # imports torch, which takes seconds

    table, sentence = places_table(host, words, (ga, ld), size, all)
    say(table)
    say(sentence, soft_wrap=True)

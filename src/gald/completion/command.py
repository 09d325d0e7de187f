"""`gald completion SHELL`: complete verbs, groups, options and keys with TAB."""

import re
from typing import Literal

from cyclopts import App

from gald.cli import HYDRA_VERBS, VERBS
from gald.command_line.app import new_app
from gald.command_line.hints import groups, keys
from gald.config import CONF_DIR, options_of

_SCRIPTS = {
    "bash": """
# gald: load it with: eval "$(gald completion bash)"
_gald() {
  local line="${COMP_LINE:0:COMP_POINT}" word answer
  word="${line##* }"
  COMPREPLY=()
  while IFS= read -r answer; do
    # readline takes = and : for the end of a word, so it gets what follows them
    [[ $COMP_WORDBREAKS == *=* && $word == *=* ]] && answer="${answer#"${word%=*}="}"
    COMPREPLY+=("$answer")
  done < <(gald completion --line "$line" 2>/dev/null)
  [[ ${#COMPREPLY[@]} -eq 1 && ${COMPREPLY[0]} == *[=./] ]] && compopt -o nospace
}
complete -o default -F _gald gald
""",
    "zsh": """
# gald: load it with: eval "$(gald completion zsh)"
_gald() {
  local -a answers
  answers=("${(@f)$(gald completion --line "${(j: :)words[1,CURRENT]}" 2>/dev/null)}")
  [[ -n $answers[1] ]] && compadd -S '' -- $answers || _files
}
compdef _gald gald
""",
    "fish": """
# gald: load it with: gald completion fish | source
complete -c gald -a '(gald completion --line (commandline -cp) 2>/dev/null)'
""",
}


def main(
    shell: Literal["bash", "zsh", "fish"] | None = None, /, *, line: str | None = None
) -> None:
    """Print the script that teaches a shell to complete the words of gald.

    Args:
        shell: eval "$(gald completion bash)" in ~/.bashrc, the same for zsh in ~/.zshrc; for fish:
            gald completion fish | source
        line: print the words that may end this line instead; the scripts use it

    Raises:
        ValueError: neither is given.
    """
    if line is not None:
        print("\n".join(endings(line)))
    elif shell is not None:
        print(_SCRIPTS[shell].strip())
    else:
        raise ValueError("gald completion needs a SHELL; choose one of bash, zsh, fish")


def endings(line: str) -> list[str]:
    """Return the words that the last word of a line may become.

    Args:
        line: a command line up to the cursor, such as `gald train model/ga=p`.
    """
    _, *words = line.split(" ")
    words = [word for word in words[:-1] if word] + words[-1:]
    if len(words) <= 1:
        return _starting_with(words[-1] if words else "", list(VERBS))
    verb, *rest = words
    last = rest[-1]
    if verb == "sweep" and rest[0] == "plan" and len(rest) > 1:
        return _config_words("train", last)
    if verb in HYDRA_VERBS:
        return _flags(last) if last[:1] == "-" else _config_words(verb, last)
    return _starting_with(last, _words_of(verb, rest))


def _flags(word: str) -> list[str]:
    known = ["--help", "--cfg", "--info", "--multirun", "--config-dir", "--package", "--resolve"]
    return _starting_with(word, known)


def _config_words(verb: str, word: str) -> list[str]:
    """Return keys and groups, one level deep, or the options of a group."""
    root = CONF_DIR / f"{verb}.yaml"
    sign = word[: len(word) - len(word.lstrip("+~"))]
    key, equals, value = word.removeprefix(sign).partition("=")
    options = groups(root)
    if equals:
        before, comma, begun = value.rpartition(",")  # of a multirun
        found = _starting_with(begun, options.get(key, []))
        return [f"{sign}{key}={before}{comma}{option}" for option in found]
    found = {f"{group}=": None for group in options if group.startswith(key)}
    for one in keys(root):
        if one.startswith(key):
            dot = one.find(".", len(key))
            found[one[: dot + 1] if dot >= 0 else f"{one}="] = None
    return [f"{sign}{one}" for one in sorted(found)]


def _words_of(verb: str, rest: list[str]) -> list[str]:
    """Return actions and options of a verb that is not Hydra's."""
    if verb not in VERBS:
        return []
    app = new_app("gald", "")
    app.command(VERBS[verb][0], name=verb)
    command: App = app[verb]
    actions = [name for name in command if not name.startswith("-")]
    if actions and len(rest) == 1:
        return actions
    if rest[0] in actions:
        command = command[rest[0]]
    names = [name for one in command.assemble_argument_collection() for name in one.names]
    words = [*(n for n in names if re.match(r"--(?!no-|empty-)", n)), "--help"]
    if verb == "data" and len(rest) == 2:
        words += options_of("data").split(", ")
    return words


def _starting_with(word: str, words: list[str]) -> list[str]:
    return sorted(one for one in words if one.startswith(word))

"""`luna-farm completion SHELL`: a script that completes commands, options and their values.

It is made from the parsers, so it knows what they know. It must never run the program while a person types:
that takes longer than a keystroke may.
"""

from __future__ import annotations

import argparse
from collections.abc import Callable, Iterator, Mapping

from luna_farm.cli import options
from luna_farm.config import Config

_EXAMPLES = """
luna-farm completion bash > ~/.local/share/bash-completion/completions/luna-farm
luna-farm completion zsh > ~/.zfunc/_luna-farm                   with fpath+=~/.zfunc in ~/.zshrc
luna-farm completion fish > ~/.config/fish/completions/luna-farm.fish
luna-farm completion powershell >> $PROFILE
"""
Words = Mapping[str, tuple[str, Mapping[str, tuple[str, ...]]]]
"""Command -> (help, option or "" for what stands without one -> its values, () for any)."""


def add_parser(subparsers: options.Subparsers) -> None:
    """Add the command."""
    parser = options.command(subparsers, "completion", "print completions for a shell", _EXAMPLES)
    parser.add_argument("shell", choices=sorted(SCRIPTS), help="the shell that reads it")


def run(args: argparse.Namespace, config: Config) -> int:
    """Print the script. Returns the exit code."""
    print("\n".join(SCRIPTS[args.shell](words())))
    return 0


def words() -> Words:
    """Return what can be typed, from the parsers of all commands."""
    from luna_farm.cli.entry import parser_for

    found = {}
    parser = parser_for([])
    (commands,) = (action for action in parser._actions if isinstance(action, argparse._SubParsersAction))
    helps = {choice.dest: choice.help or "" for choice in commands._choices_actions}
    for name, command in commands.choices.items():
        known: dict[str, tuple[str, ...]] = {}
        for action in command._actions:
            values = tuple(map(str, action.choices or ()))
            if action.help != argparse.SUPPRESS and (action.option_strings or values):
                known[action.option_strings[-1] if action.option_strings else ""] = values
        found[name] = (helps[name], known)
    return found


def _bash(known: Words) -> Iterator[str]:
    yield "_luna_farm() {"
    yield '    local cur="${COMP_WORDS[COMP_CWORD]}" prev="${COMP_WORDS[COMP_CWORD-1]}" words=""'
    yield '    if [ "$COMP_CWORD" -eq 1 ]; then'
    yield f'        words="{" ".join(known)}"'
    yield "    else"
    yield '        case "${COMP_WORDS[1]} $prev" in'
    for name, (_, found) in known.items():
        for option, values in found.items():
            if option and values:
                yield f'            "{name} {option}") words="{" ".join(values)}" ;;'
    yield '            *) case "${COMP_WORDS[1]}" in'
    for name, (_, found) in known.items():
        listed = [*found.get("", ()), *filter(None, found)]
        yield f'                {name}) words="{" ".join(listed)}" ;;'
    yield "            esac ;;"
    yield "        esac"
    yield "    fi"
    yield '    COMPREPLY=($(compgen -W "$words" -- "$cur"))'
    yield "}"
    yield "complete -o default -F _luna_farm luna-farm"


def _zsh(known: Words) -> Iterator[str]:
    yield "#compdef luna-farm"
    yield "_luna-farm() {"
    yield "    local -a commands"
    yield "    commands=("
    for name, (text, _) in known.items():
        yield f"        {_single(f'{name}:{text}')}"
    yield "    )"
    yield "    if (( CURRENT == 2 )); then _describe command commands; return; fi"
    yield '    case "$words[2] $words[CURRENT-1]" in'
    for name, (_, found) in known.items():
        for option, values in found.items():
            if option and values:
                yield f'        "{name} {option}") compadd -- {" ".join(values)}; return ;;'
    yield "    esac"
    yield '    case "$words[2]" in'
    for name, (_, found) in known.items():
        listed = [*found.get("", ()), *filter(None, found)]
        yield f"        {name}) compadd -- {' '.join(listed)} ;;"
    yield "    esac"
    yield "    _files"
    yield "}"
    # In a folder of fpath the file is the body of the function, and replaces itself when it is called first.
    yield 'if [[ "$zsh_eval_context[-1]" == loadautofunc ]]; then _luna-farm "$@"'
    yield "else compdef _luna-farm luna-farm; fi"


def _fish(known: Words) -> Iterator[str]:
    for name, (text, found) in known.items():
        seen = f"__fish_seen_subcommand_from {name}"
        yield f"complete -c luna-farm -n __fish_use_subcommand -f -a {name} -d {_single(text)}"
        for option, values in found.items():
            listed = f" -x -a {_single(' '.join(values))}" if values else ""
            flag = f" -l {option.removeprefix('--')}" if option.startswith("--") else ""
            if flag or not option:
                yield f"complete -c luna-farm -n {_single(seen)}{flag}{listed}"


def _powershell(known: Words) -> Iterator[str]:
    yield "Register-ArgumentCompleter -Native -CommandName luna-farm -ScriptBlock {"
    yield "    param($word, $line, $position)"
    yield "    $words = @($line.CommandElements | ForEach-Object { $_.ToString() })"
    yield "    $known = @{"
    for name, (_, found) in known.items():
        listed = [*found.get("", ()), *filter(None, found)]
        yield f"        {_quoted(name)} = @({', '.join(map(_quoted, listed))})"
        for option, values in found.items():
            if option and values:
                yield f"        {_quoted(f'{name} {option}')} = @({', '.join(map(_quoted, values))})"
    yield "    }"
    yield "    $typed = $words.Count - [int]($word -ne '')"
    yield f"    $found = @({', '.join(map(_quoted, known))})"
    yield "    if ($typed -gt 1) {"
    yield '        $found = $known["$($words[1]) $($words[$typed - 1])"]'
    yield "        if (-not $found) { $found = $known[$words[1]] }"
    yield "    }"
    yield '    $found | Where-Object { $_ -like "$word*" } | ForEach-Object {'
    yield "        [System.Management.Automation.CompletionResult]::new($_)"
    yield "    }"
    yield "}"


def _single(text: str) -> str:
    return "'" + text.replace("'", "'\\''") + "'"


def _quoted(text: str) -> str:
    return "'" + text.replace("'", "''") + "'"


SCRIPTS: dict[str, Callable[[Words], Iterator[str]]] = {
    "bash": _bash,
    "zsh": _zsh,
    "fish": _fish,
    "powershell": _powershell,
}

"""The command line: a table of plain functions, each with its signature for options and its docstring for help.

What a command needs is imported when it is called, so that `uwml --help` is quick.
"""

import contextlib
import io
import json
import os
import pkgutil
import shlex
import sys
from collections.abc import Iterator, Sequence
from functools import partial, wraps
from typing import IO, Any

from uwml_lib import __version__
from uwml_lib.support.errors import UWMLError

GROUPS: dict[str, dict[str, tuple[str, str]]] = {
    "data": {
        "data": ("commands.data:data", "build, download or check a data set"),
        "captions": ("datasets.raw.karpathy:write_captions", "write captions and ids from Karpathy's JSON"),
        "features": ("datasets.raw.bottom_up:write_features", "write features and boxes from bottom-up attention"),
        "msrvtt": ("datasets.raw.msrvtt:write_videos", "make a data set of videos from files like MSR-VTT's"),
        "pictures": ("datasets.raw.pictures:write_pictures", "make a data set of your own pictures"),
        "doctor": ("commands.doctor:doctor", "check whether this machine can run the kit"),
    },
    "train": {
        "train": ("commands.train:train", "train one model and evaluate it; continues an interrupted run"),
        "train-released": ("commands.train:train_released", "the same, with the flags of the released train.py"),
    },
    "studies": {
        "reproduce": ("commands.studies:reproduce", "build the data, train both losses, execute notebooks, report"),
        "compare": ("commands.studies:compare", "train every loss with the same budget and tuning"),
        "evidence": ("commands.studies:evidence", "tune losses alike and train enough seeds to decide"),
        "fidelity": ("commands.studies:fidelity", "measure what the habits of the released code change"),
        "models": ("commands.studies:models", "train both losses on every model"),
        "videos": ("commands.studies:videos", "train both losses on videos"),
        "sweep": ("commands.studies:sweep", "try settings, on one machine or several, and choose on dev"),
    },
    "results": {
        "evaluate": ("commands.evaluate:evaluate", "evaluate a run, a released checkpoint, or an ensemble"),
        "search": ("commands.search:search", "find images for a sentence, or captions for an image"),
        "convert": ("commands.evaluate:convert", "convert a released checkpoint into a folder of this kit"),
        "report": ("commands.evaluate:report", "print the table of a data set and rebuild the site"),
        "published": ("commands.evaluate:published", "print the published numbers beside your own"),
    },
}  # fmt: skip
"""Group -> command -> its function, "module:function" in `uwml_lib`, and what it does."""

COMMANDS = {name: function for group in GROUPS.values() for name, (function, _) in group.items()}
DEFAULTS = {"train": "commands.train:with_preset", "train-released": "commands.train:with_released_flags"}
"""Command -> what sets its defaults where they depend on its words: words -> the function with them, the words left."""

NOTES = """\
`uwml COMMAND --help` lists the options of a command. Every command takes `--debug`, which shows the traceback of an
error, and `--json`, which prints the result as JSON and everything else to the standard error. `uwml --version` prints
the version.

  uwml reproduce                                     everything, on the embedded data
  uwml train --dataset scenes --loss triplet         one training, with the settings of its data set
  uwml --json evaluate reports/runs/scenes/NAME      its recalls, for another program
  uwml sweep --space '{"loss.margin": [0.1, 0.2]}'   the margin that is best on dev

Exit codes: 0 success, 1 an error, 2 a misspelt command or option, 130 stopped by Ctrl-C."""


def usage() -> str:
    """Return the help of `uwml`: every command in its group, and some examples."""
    lines = [f"uwml {__version__}: universal weighting metric learning for cross-modal matching", ""]
    for group, commands in GROUPS.items():
        lines += [group, *(f"  uwml {name:<16}{about}" for name, (_, about) in commands.items()), ""]
    return "\n".join([*lines, NOTES])


def parse(command: str, words: Sequence[str]) -> partial[Any]:
    """Return a command's function with the arguments that its words give; raises SystemExit where they do not fit.

    Parameters before a `/` are positional. All others are options, the fields of a dataclass too; what cannot be given
    in words, such as `say`, is none and keeps its default.
    """
    try:
        import tyro
    except ModuleNotFoundError as error:
        advice = "`make setup`, or pip install '/path/to/the/kit[notebooks]'"
        raise UWMLError(f"this needs packages that are not installed: {advice}") from error
    from uwml_lib.support.files import unique_keys

    function = pkgutil.resolve_name(f"uwml_lib.{COMMANDS[command]}")
    if command in DEFAULTS:
        function, words = pkgutil.resolve_name(f"uwml_lib.{DEFAULTS[command]}")(words)

    @wraps(function)
    def bind(*arguments: Any, **options: Any) -> partial[Any]:
        return partial(function, *arguments, **options)

    as_json = tyro.constructors.PrimitiveConstructorSpec(
        nargs=1, metavar="JSON", instance_from_str=lambda words: json.loads(words[0], object_pairs_hook=unique_keys),
        is_instance=lambda value: isinstance(value, dict), str_from_instance=lambda value: [json.dumps(value)],
    )  # fmt: skip
    registry = tyro.constructors.ConstructorRegistry()
    registry.primitive_rule(lambda info: as_json if info.type == dict[str, Any] else None)
    with registry:
        config = (tyro.conf.OmitArgPrefixes, tyro.conf.SuppressFixed, tyro.conf.PositionalMetavarFromFieldName)
        return tyro.cli(bind, args=words, prog=f"uwml {command}", config=config)


def main(arguments: Sequence[str] | None = None) -> int:
    """Run one command; return its exit code: 0, or 1 for an error, said in one sentence."""
    for stream in (sys.stdout, sys.stderr):  # where there is no arrow, a question mark will do
        if hasattr(stream, "reconfigure"):
            stream.reconfigure(errors="replace")
    words = list(sys.argv[1:] if arguments is None else arguments)
    switches = [word for word in words if word in ("--debug", "--json")]
    command, *rest = [word for word in words if word not in switches] or ["--help"]
    if command in ("-h", "--help", "--version"):
        print(f"uwml {__version__}" if command == "--version" else usage())
        return 0
    if command not in COMMANDS:
        print(f"uwml: found {command!r}, expected one of {', '.join(COMMANDS)}", file=sys.stderr)
        return 2
    try:
        _run(command, rest, switches)
    except (UWMLError, OSError, RecursionError) as error:  # the last of JSON nested too deeply
        if "--debug" in switches:
            raise
        reason = error.strerror if isinstance(error, OSError) else None
        sentence = f"{getattr(error, 'filename', None) or 'writing'}: {reason}" if reason else error
        print(f"uwml {command}: {sentence}", file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        print("stopped; the same command continues from here", file=sys.stderr)
        return 130
    return 0


def uwml(command: str, *words: object, quiet: bool = False) -> None:
    """Run a command in a notebook: show it as one types it in a shell, and what it prints, errors too.

    command: such as "data --dataset scenes"; words: further ones, each taken as it is. quiet: shows the command alone.
    Where nobody is looking, what is printed is shown at the end, with paths as seen from the working folder, or from
    the project's.
    """
    from uwml_lib.support.paths import ROOT
    from uwml_lib.support.progress import headless

    given, said = [*shlex.split(command), *map(str, words)], io.StringIO()
    print("$ uwml", shlex.join(given), flush=True)
    out = said if quiet or headless() else sys.stdout
    with contextlib.redirect_stdout(out), contextlib.redirect_stderr(out):
        main(given)
    shown = "" if quiet else said.getvalue()
    for folder in (os.getcwd(), ROOT):
        shown = shown.replace(f"{folder}{os.sep}", "")
    print(shown, end="", flush=True)


def _run(command: str, words: list[str], switches: list[str]) -> None:
    call = parse(command, words)
    if (processes := call.keywords.get("processes", 1)) != 1:
        from uwml_lib.training import check_config
        from uwml_lib.training.processes import launch, launched

        if launched() == 1:
            check_config(call.keywords["experiment"], processes)
            launch(processes, [*switches, command, *words])
            return
    with _standard_error_alone() if "--json" in switches else contextlib.nullcontext() as out:
        found = call() or {}
        if out and os.environ.get("RANK", "0") == "0":  # of several processes one speaks
            print(json.dumps(found, indent=1), file=out)


@contextlib.contextmanager
def _standard_error_alone() -> Iterator[IO[str]]:
    """Send all that is printed, by other processes too, to the standard error; yield what was the standard output."""
    sys.stdout.flush()
    with os.fdopen(os.dup(1), "w", encoding="utf-8") as out:
        os.dup2(2, 1)
        try:
            with contextlib.redirect_stdout(sys.stderr):
                yield out
        finally:
            os.dup2(out.fileno(), 1)


if __name__ == "__main__":
    sys.exit(main())

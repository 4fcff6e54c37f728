"""The command line: ``tiercel info | run | bench | profile | train | demo``.

Exit codes: 0 done, 1 the model cannot be loaded or run, or engines disagree, 2 wrong usage, 130 interrupted.
"""

from __future__ import annotations

import argparse
import os
import sys
from collections.abc import Sequence


def _parser() -> argparse.ArgumentParser:
    from tiercel import __version__
    from tiercel.cli import bench, demo, info, profile, run, train

    parser = argparse.ArgumentParser(prog="tiercel", description="Look at, run, time and train ONNX models.")
    parser.add_argument("--version", action="version", version=f"tiercel {__version__}")
    commands = parser.add_subparsers(dest="command", metavar="COMMAND", required=True)
    for module in (info, run, bench, profile, train, demo):
        name = module.__name__.rpartition(".")[2]
        what = (module.__doc__ or "").strip()
        sub = commands.add_parser(name, help=what.splitlines()[0], description=what, formatter_class=_Formatter)
        module.add_arguments(sub)
        sub.set_defaults(call=module.main)
    return parser


class _Formatter(argparse.RawDescriptionHelpFormatter):
    """Keeps paragraphs as written."""


def main(argv: Sequence[str] | None = None) -> int:
    """Runs one command and returns its exit code. argv: the arguments, ``sys.argv[1:]`` by default."""
    from tiercel import errors
    from tiercel.cli.feeds import UsageError

    args = _parser().parse_args(argv)
    try:
        code: int = args.call(args)
        sys.stdout.flush()
        return code
    except UsageError as e:
        print(f"tiercel {args.command}: {e}", file=sys.stderr)
        return 2
    except errors.Error as e:
        where = f"{args.model}: " if "model" in args else ""
        print(f"tiercel {args.command}: {where}{type(e).__name__}: {e}", file=sys.stderr)
        return 1
    except MemoryError as e:
        print(f"tiercel {args.command}: out of memory: {e}".rstrip(": "), file=sys.stderr)
        return 1
    except BrokenPipeError:  # `tiercel info model | head`
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 0
    except OSError as e:  # a file or folder that cannot be written
        print(
            f"tiercel {args.command}: {e.filename or ''}{': ' if e.filename else ''}{e.strerror or e}", file=sys.stderr
        )
        return 1
    except KeyboardInterrupt:
        print(f"tiercel {args.command}: interrupted", file=sys.stderr)
        return 130

"""Command line of the cycle model."""

import argparse
import shlex
import sys
from pathlib import Path

from edgeaccel.cache import CACHE_FORMATS
from edgeaccel.formats import FORMATS
from edgeaccel.machine import MACHINES
from edgeaccel.perf.shapes import SHAPES, find

EXAMPLES = f"""\
examples:
  python -m edgeaccel.perf --model LLaMA2-7B --preset vcu128 --context 512 --weights int4
  python -m edgeaccel.perf --model stories110M --preset vu9p --context 256 --weights int8 --plot stories.png
  python -m edgeaccel.perf --model Llama-3-8B --preset vcu128 --context 4096 --weights int4 --cache int8 --text 256
  python -m edgeaccel.perf --model LLaMA2-7B --preset vcu128 --set rows=1 --prompt 64 --json one_row.json
  python -m edgeaccel.perf --model Llama-2-7b-hf/ --preset vcu128 --context 2048

Models known by their names: {", ".join(SHAPES)}. Of a file or folder only the sizes are
read. Tokens a second are those of the cycle model, joules an estimate from what others have published.
"""


def main(arguments=None):
    """Run the command line; returns the exit status: 0, 2 for bad input, 3 if something is not installed."""
    options = _parser().parse_args(arguments)
    try:
        for path in (options.json, options.plot):
            if path is not None and not path.parent.is_dir():
                raise ValueError(f"there is no folder {path.parent} to write {path.name} to")
        report = _report(options)
        _write(report, options)
    except ModuleNotFoundError as error:
        advice = "" if "pip install" in str(error) else "; pip install 'edgeaccel[bench]' brings what it needs"
        print(f"error: {error}{advice}", file=sys.stderr)
        return 3
    except (ValueError, OSError) as error:
        print(f"error: {error}", file=sys.stderr)
        return 2
    return 0


def _parser():
    parser = argparse.ArgumentParser(
        prog="python -m edgeaccel.perf",
        description="Tokens a second of a model on a machine, by the cycle model: decoding, prompts, operators.",
        epilog=EXAMPLES,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    add = parser.add_argument
    add("--model", metavar="NAME|PATH", required=True, help="a model's name, or a checkpoint's file or folder")
    add("--preset", choices=sorted(MACHINES), default="vcu128", help="machine (default: vcu128)")
    add("--set", metavar="SIZE=N", action="append", default=[], help="another size of the machine, such as rows=1")
    add("--context", metavar="N", type=_count, default=512, help="tokens before the one decoded (default: 512)")
    add("--weights", choices=tuple(FORMATS), default="int4", help="format of all matrices (default: int4)")
    add("--classifier", choices=tuple(FORMATS), help="format of the classifier, if it has another")
    add("--cache", choices=CACHE_FORMATS, default="int16", help="format of keys and values (default: int16)")
    add("--prompt", metavar="N", type=_count, help="tokens of the prompt (default: as many as the context)")
    add("--text", metavar="N", type=_count, default=0, help="average over so many tokens, from the context on, too")
    add("--lut", metavar="N", type=_count, help="LUTs of the machine, for a narrower estimate of energy")
    add("--json", metavar="FILE", type=Path, help="write the records: name, value, unit, kind, source")
    add("--plot", metavar="FILE", type=Path, help="write a picture of roofline and layers (.png, .svg, .pdf)")
    return parser


def _count(text):
    value = int(text) if text.isdecimal() else 0
    if value < 1:
        raise argparse.ArgumentTypeError(f"must be a whole number of at least 1, not {text!r}")
    return value


def _command(options):
    """What was asked for, but for the files that it goes to."""
    words = ["python", "-m", "edgeaccel.perf"]
    for name, value in vars(options).items():
        if name not in ("json", "plot"):
            for each in value if isinstance(value, list) else [value]:
                words += [f"--{name}", str(each)] if each else []
    return shlex.join(words)


def _report(options):
    from rich.console import Console
    from rich.progress import Progress

    from edgeaccel.elaborate import build_machine
    from edgeaccel.perf.memory import of_machine
    from edgeaccel.perf.model import Performance, batches
    from edgeaccel.perf.report import Report

    name, shape = find(options.model)
    machine = build_machine(options.preset, options.set)
    prompt = options.prompt or options.context
    performance = Performance(
        shape,
        machine,
        of_machine(options.preset, machine),
        positions=max(options.context + max(options.text, 1), prompt),
        weights=options.weights,
        classifier=options.classifier,
        cache=options.cache,
        name=name,
    )
    console = Console(stderr=True)
    total = 1 + len(batches(machine.config.batch_rows, prompt)) + options.text
    with Progress(console=console, transient=True, disable=not console.is_terminal) as progress:
        task = progress.add_task("predicting", total=total)

        def advance(count):
            progress.advance(task, count)

        decode = performance.decode(options.context)
        advance(1)
        prefill = performance.prefill(prompt, advance)
        text = performance.text(options.context, options.text, advance) if options.text else None
    return Report(
        performance=performance,
        name=name,
        preset=options.preset,
        context=options.context,
        decode=decode,
        prefill=prefill,
        text=text,
        lut=options.lut,
        command=_command(options),
    )


def _write(report, options):
    from rich.console import Console

    from edgeaccel.bench.record import to_json
    from edgeaccel.perf.plot import draw

    # Not cut to the width of a terminal where there is none.
    console = Console(width=None if sys.stdout.isatty() else 160)
    for table in report.tables():
        console.print(table)
    if options.json is not None:
        options.json.write_text(to_json(report.records()), encoding="utf-8")
    if options.plot is not None:
        draw(report, options.plot)


if __name__ == "__main__":
    sys.exit(main())

"""Command line of the benches."""

import argparse
import pkgutil
import sys
from importlib import import_module
from pathlib import Path

import edgeaccel.bench
from edgeaccel.bench.record import to_json
from edgeaccel.verilated import ToolMissingError

EXAMPLES = """\
examples:
  python -m edgeaccel.bench pe
  python -m edgeaccel.bench pe --json pe.json --plot pe.png
  python -m edgeaccel.bench functions --plot functions.png
  python -m edgeaccel.bench cache --json cache.json
"""


def benches():
    """Names of the benches."""
    modules = (module.name for module in pkgutil.iter_modules(edgeaccel.bench.__path__))
    return [name for name in modules if name not in ("__main__", "record")]


def main(arguments=None):
    """Run the command line; returns the exit status: 0, 2 for bad input, 3 if a tool is missing."""
    parser = argparse.ArgumentParser(
        prog="python -m edgeaccel.bench",
        description="Measure figures; each says whether it is simulated, estimated, measured or reported by others.",
        epilog=EXAMPLES,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("name", metavar="NAME", choices=benches(), help=f"one of: {', '.join(benches())}")
    parser.add_argument("--json", metavar="FILE", type=Path, help="write the records: name, value, unit, kind, source")
    parser.add_argument("--plot", metavar="FILE", type=Path, help="write a picture (.png, .svg, .pdf)")
    options = parser.parse_args(arguments)
    try:
        for path in (options.json, options.plot):
            if path is not None and not path.parent.is_dir():
                raise ValueError(f"there is no folder {path.parent} to write {path.name} to")
        records = _measure(options.name)
        if options.json is not None:
            options.json.write_text(to_json(records))
        if options.plot is not None:
            _plot(options.name, records, options.plot)
    except (ValueError, OSError) as error:
        print(f"error: {error}", file=sys.stderr)
        return 2
    except (ToolMissingError, ModuleNotFoundError) as error:
        advice = "" if "pip install" in str(error) else "; pip install 'edgeaccel[sim,bench]' brings what a bench needs"
        print(f"error: {error}{advice}", file=sys.stderr)
        return 3
    return 0


def _measure(name):
    from rich.console import Console
    from rich.progress import Progress
    from rich.table import Table

    bench = import_module(f"edgeaccel.bench.{name}")
    with Progress(console=Console(stderr=True), transient=True) as progress:
        records = bench.measure(progress)
    table = Table("name", "value", "unit", "kind", "source", title=bench.__doc__.splitlines()[0])
    for record in records:
        table.add_row(record.name, f"{record.value:.6g}", record.unit, record.kind, record.source)
    # Not cut to the width of a terminal where there is none.
    Console(width=None if sys.stdout.isatty() else 160).print(table)
    return records


def _plot(name, records, path):
    import matplotlib

    matplotlib.use("Agg")
    from matplotlib import pyplot

    figure, axes = pyplot.subplots(figsize=(8, 5), layout="constrained")
    import_module(f"edgeaccel.bench.{name}").plot(records, axes)
    figure.savefig(path, dpi=150)
    pyplot.close(figure)


if __name__ == "__main__":
    sys.exit(main())

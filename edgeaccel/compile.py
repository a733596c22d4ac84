"""From the command line: a checkpoint becomes an image.

python -m edgeaccel.compile --model stories15M.bin --preset tiny --weights int8 --out stories.image
"""

import argparse
import json
import sys
import time
from pathlib import Path

from edgeaccel import isa
from edgeaccel.cache import CACHE_FORMATS
from edgeaccel.checkpoint import load
from edgeaccel.checkpoint.tokenizer import find
from edgeaccel.compiler import KINDS, compile_model
from edgeaccel.elaborate import build_machine
from edgeaccel.formats import FORMATS
from edgeaccel.image import Image
from edgeaccel.machine import MACHINES

__all__ = ["listing", "main"]

EXAMPLES = """\
examples:
  python -m edgeaccel.compile --model stories15M.bin --tokenizer tokenizer.bin --preset tiny --out stories.image
  python -m edgeaccel.compile --model Llama-3.2-1B --preset vcu128 --weights int4 --classifier int8 --out llama.image
  python -m edgeaccel.compile --model qwen2.gguf --preset vu9p --weights int8 --format down=int16 --out qwen2.image
  python -m edgeaccel.compile --model stories15M.bin --preset tiny --set port_bytes=67108864 --out stories.image
  python -m edgeaccel.compile --model stories15M.bin --weights mxfp4 --set formats=int8,int16,mxfp4 --out stories.image

A model is a file of llama2.c (.bin), one of llama.cpp (.gguf), or a folder of Hugging Face.
"""


def listing(image):
    """Text of an image's program: a line an instruction, and what it is for."""
    lines = zip(isa.disassemble(image.program), image.manifest["names"], strict=True)
    return "".join(f"{line}  ; {name}\n" for line, name in lines)


def summary(image, path, seconds):
    """What was made, for programs that read it."""
    manifest, ports = image.manifest, image.machine.config.groups
    in_ports = [place for place in manifest["regions"].values() if place[0] < image.machine.data_base]
    return {
        "image": str(path),
        "file_bytes": path.stat().st_size,
        "instructions": len(image.program) // isa.INSTRUCTION_BYTES,
        "formats": manifest["formats"],
        "cache_format": manifest["cache_format"],
        "positions": manifest["positions"],
        "tokenizer": manifest["tokenizer"] is not None,
        "port_bytes_used": max(address + size for address, size in in_ports),
        "port_bytes": image.machine.port_bytes,
        "ports": ports,
        "seconds": round(seconds, 3),
    }


def main(arguments=None):
    """Run the command line; returns the exit status: 0, or 2 if something asked for is not possible."""
    options = _parser().parse_args(arguments)
    from rich.console import Console

    console = Console(stderr=True)
    begin = time.monotonic()
    try:
        target = build_machine(options.preset, options.set)
        if not options.model.exists():
            raise FileNotFoundError(f"there is no {options.model}; name a checkpoint's file or folder")
        checkpoint = load(options.model)
        tokenizer = find(options.tokenizer, options.model, checkpoint.shape.vocab_size)
        image = compile_model(
            checkpoint,
            target,
            weights=options.weights,
            classifier=options.classifier,
            cache=options.cache,
            positions=options.positions,
            tokenizer=tokenizer,
            formats=_formats(options.format),
        )
        _save(image, options.out, console)
        if options.listing:
            options.listing.write_text(listing(image), encoding="utf-8")
    except (ValueError, OSError, ModuleNotFoundError) as error:
        notes = "".join(f"; {note}" for note in getattr(error, "__notes__", ()))
        print(f"error: {error}{notes}", file=sys.stderr)
        return 2
    made = summary(image, options.out, time.monotonic() - begin)
    if options.json:
        print(json.dumps(made, indent=2))
    else:
        console.print(
            f"{made['image']}: {made['file_bytes']:,} bytes, {made['instructions']} instructions,"
            f" {made['positions']} positions; {made['port_bytes_used']:,} of {made['port_bytes']:,} bytes of each of"
            f" {made['ports']} ports; {made['seconds']:.1f} s",
            highlight=False,
            soft_wrap=True,
        )
        if tokenizer is None:
            console.print("no tokenizer: the image runs on tokens only; name one with --tokenizer", style="yellow")
    return 0


def _parser():
    parser = argparse.ArgumentParser(
        prog="python -m edgeaccel.compile",
        description="Compile a checkpoint for a machine: one file with its memory and its program.",
        epilog=EXAMPLES,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    formats = ", ".join(FORMATS)
    add = parser.add_argument
    add("--model", metavar="PATH", type=Path, required=True, help="checkpoint: a file or a folder")
    add("--out", metavar="FILE", type=Path, required=True, help="image to write")
    add("--preset", choices=sorted(MACHINES), default="tiny", help="machine that it is for (default: tiny)")
    add(
        "--set",
        metavar="NAME=VALUE",
        action="append",
        default=[],
        help="another size of the machine, as of python -m edgeaccel.elaborate",
    )
    add("--weights", choices=tuple(FORMATS), default="int8", help="format of all matrices (default: int8)")
    add("--classifier", choices=tuple(FORMATS), help="format of the classifier, if it has another")
    add(
        "--format",
        metavar="KIND=FORMAT",
        action="append",
        default=[],
        help=f"format of a kind of matrix, of {', '.join(KINDS)}: {formats}",
    )
    add("--cache", choices=CACHE_FORMATS, default="int16", help="format of keys and values (default: int16)")
    add("--positions", metavar="N", type=int, help="longest sequence (default: the model's, or what fits)")
    add("--tokenizer", metavar="FILE", type=Path, help="tokenizer (default: that of the model's folder or file)")
    add("--listing", metavar="FILE", type=Path, help="write the program as text too")
    add("--json", action="store_true", help="print a summary as JSON")
    return parser


def _pairs(texts, option, what):
    pairs = [text.partition("=") for text in texts]
    if wrong := [text for text, (_, sign, value) in zip(texts, pairs, strict=True) if not sign or not value]:
        raise ValueError(f"{option} must be {what}, not {wrong[0]!r}")
    return {name: value for name, _, value in pairs}


def _formats(texts):
    return _pairs(texts, "--format", "KIND=FORMAT, such as down=int8")


def _save(image: Image, path, console):
    from rich.progress import BarColumn, DownloadColumn, Progress, TextColumn, TimeRemainingColumn

    columns = (TextColumn("writing"), BarColumn(), DownloadColumn(), TimeRemainingColumn())
    with Progress(*columns, console=console, transient=True, disable=not console.is_terminal) as progress:
        task = progress.add_task("writing", total=image.n_bytes)
        image.save(path, progress=lambda n_bytes: progress.advance(task, n_bytes))


if __name__ == "__main__":
    sys.exit(main())

"""Command line: text from a model, on compiled RTL or on the golden machine."""

import argparse
import json
import sys
import time
from pathlib import Path

from edgeaccel.verilated import ToolMissingError

__all__ = ["main"]

EXAMPLES = """\
examples:
  python -m edgeaccel.run
  python -m edgeaccel.run --image story.image --engine rtl --prompt "Once upon a time" --tokens 60
  python -m edgeaccel.run --model stories260K.bin --tokenizer tok512.bin --preset tiny --prompt "One day" --check
  python -m edgeaccel.run --image story.image --temperature 0.8 --top-p 0.9 --seed 1 --prompt "Tom" --json run.json
  python -m edgeaccel.run --image story.image --prompt "Tom" --tokens 3 --trace timeline.json --vcd wave.vcd
  python -m edgeaccel.run --image story.image --engine board --device /dev/xdma0

exit status: 0 if all went well; 1 if RTL and golden machine differ, or the machine stopped with an error; 2 for bad
input, or a board that cannot be used; 3 if a tool is missing.
"""
PROGRESS_SECONDS = 5
CYCLES = {"rtl": "simulated", "golden": "predicted", "board": "measured"}  # what they are, by engine


def main(arguments=None):
    """Run the command line; returns the exit status."""
    options = _parser().parse_args(arguments)
    try:
        _check_options(options)
        return _run(options)
    except (ToolMissingError, ModuleNotFoundError) as error:
        print(f"error: {error}; pip install 'edgeaccel[sim,models]' brings what a run needs", file=sys.stderr)
        return 3
    except (ValueError, OSError) as error:
        print("; ".join([f"error: {error}", *getattr(error, "__notes__", ())]), file=sys.stderr)
        return 2


def _parser():
    parser = argparse.ArgumentParser(
        prog="python -m edgeaccel.run",
        description="Let a model go on with a text. The text goes to the standard output as it comes.",
        epilog=EXAMPLES,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    model = parser.add_argument_group("model")
    which = model.add_mutually_exclusive_group()
    which.add_argument("--image", metavar="FILE", type=Path, help="an image of python -m edgeaccel.compile")
    which.add_argument(
        "--model",
        metavar="PATH",
        type=Path,
        help="a checkpoint, which is compiled first; the package's own if neither is given",
    )
    model.add_argument(
        "--tokenizer", metavar="FILE", type=Path, help="with --model: its tokenizer, if that is not with it"
    )
    model.add_argument("--preset", metavar="P", help="the machine: tiny (with --model by default), vcu128, vu9p")
    model.add_argument("--weights", metavar="F", default="int8", help="with --model: format (int8 by default)")
    model.add_argument("--cache", metavar="F", default="int16", help="with --model: of the cache (int16 by default)")
    model.add_argument("--positions", metavar="N", type=int, help="with --model: the longest context")
    parser.add_argument("--engine", choices=tuple(CYCLES), default="rtl", help="what computes (rtl by default)")
    parser.add_argument(
        "--device", metavar="PATH", help="with --engine board: which, by its driver's name (/dev/xdma0 by default)"
    )
    parser.add_argument("--memory", choices=("ideal", "hbm2", "ddr4"), default="hbm2", help="timing behind RTL's ports")
    text = parser.add_argument_group("text")
    text.add_argument("--prompt", metavar="TEXT", default="Once upon a time", help="how the text begins")
    text.add_argument("--tokens", metavar="N", type=int, default=100, help="at most as many more (100 by default)")
    text.add_argument("--temperature", metavar="T", type=float, default=0.0, help="0, the most likely, by default")
    text.add_argument("--top-k", metavar="K", type=int, default=0, help="draw from the K most likely only")
    text.add_argument("--top-p", metavar="P", type=float, default=1.0, help="draw from those that make up P only")
    text.add_argument("--seed", metavar="N", type=int, default=0, help="of the draws")
    output = parser.add_argument_group("output")
    output.add_argument("--check", action="store_true", help="run the golden machine too; compare after every token")
    output.add_argument("--json", metavar="FILE", type=Path, help="write what came of it")
    output.add_argument("--trace", metavar="FILE", type=Path, help="write a timeline of the units, for Perfetto")
    output.add_argument("--vcd", metavar="FILE", type=Path, help="write a waveform")
    output.add_argument("--vcd-from", metavar="N", type=int, default=0, help="its first cycle")
    output.add_argument("--vcd-cycles", metavar="N", type=int, default=10_000, help="its cycles (10000 by default)")
    return parser


def _check_options(options):
    for path in (options.json, options.trace, options.vcd):
        if path is not None and not path.parent.is_dir():
            raise ValueError(f"there is no folder {path.parent} to write {path.name} to")
    if options.engine != "rtl":
        for name in ("check", "trace", "vcd"):
            if getattr(options, name):
                raise ValueError(f"--{name} needs --engine rtl")
    if options.device and options.engine != "board":
        raise ValueError("--device needs --engine board")
    if options.tokens < 1:
        raise ValueError(f"--tokens must be at least 1, not {options.tokens}")
    if options.vcd_from < 0 or options.vcd_cycles < 1:
        raise ValueError("--vcd-from must be 0 or more, and --vcd-cycles 1 or more")


def _run(options):
    from edgeaccel.runtime import Sampler
    from edgeaccel.runtime.generate import check_prompt

    sampler = None
    if options.temperature or options.top_k or options.top_p != 1:
        sampler = Sampler(options.temperature, options.top_k, options.top_p, options.seed)
    image, tokenizer = _image(options)
    prompt = check_prompt(image, tokenizer.encode(options.prompt, bos=True))
    device = _device(options, image)
    try:
        return _tell(options, device, image, tokenizer, prompt, sampler)
    finally:
        if hasattr(device, "close"):
            device.close()


def _tell(options, device, image, tokenizer, prompt, sampler):
    """Let a device go on with a prompt; the exit status."""
    from edgeaccel.runtime import DeviceError, generate
    from edgeaccel.runtime.check import CheckedDevice, Difference
    from edgeaccel.sim.bench import StreamError

    _say("loading the image")
    device.load(image)
    run = _Session(options, device, tokenizer, prompt)
    problem = None
    try:
        done = generate(device, image, prompt, options.tokens, sampler, run.on_token)
        run.finish(done.stop)
        if isinstance(device, CheckedDevice):
            device.compare_all()
            run.identical = True
        if done.is_cut:
            _say(f"the context of {image.manifest['positions']} tokens is full")
    except Difference as difference:
        problem, run.identical = f"RTL and golden machine differ: {difference}", False
    except (DeviceError, StreamError) as error:
        problem = f"the machine stopped: {error}"
    run.end_text()
    record = run.record(image, problem)
    if options.trace is not None:
        _rtl(device).write_timeline(options.trace)
    if options.vcd is not None and not options.vcd.exists():
        _say(f"no waveform: all was over after {_rtl(device).cycles} cycles, before --vcd-from {options.vcd_from}")
    if options.json is not None:
        options.json.write_text(json.dumps(record, indent=1) + "\n")
    _say(run.summary(record))
    if problem:
        print(f"error: {problem}", file=sys.stderr)
        return 1
    return 0


def _image(options):
    """(image, tokenizer)"""
    from edgeaccel.checkpoint import tokenizer
    from edgeaccel.image import Image
    from edgeaccel.machine import machine

    if options.image is not None:
        image = Image.load(options.image, machine(options.preset) if options.preset else None)
        if image.manifest.get("tokenizer") is None:
            raise ValueError(f"{options.image} has no tokenizer; compile the model with one")
        return image, tokenizer.restore(image.manifest["tokenizer"])
    from edgeaccel import stories
    from edgeaccel.checkpoint import load
    from edgeaccel.compiler import compile_model

    built = machine(options.preset or "tiny")
    model, pieces = options.model, options.tokenizer
    if model is None:
        model, own = stories.files()
        pieces = pieces or own
    checkpoint = load(model)
    pieces = tokenizer.find(pieces, model, checkpoint.shape.vocab_size)
    if pieces is None:
        raise ValueError(f"name the tokenizer of {model} with --tokenizer")
    _say(f"compiling {model.name}")
    image = compile_model(
        checkpoint,
        built,
        weights=options.weights,
        cache=options.cache,
        positions=options.positions,
        tokenizer=pieces,
    )
    return image, pieces


def _device(options, image):
    from edgeaccel.runtime import GoldenDevice

    if options.engine == "golden":
        return GoldenDevice(image.machine)
    if options.engine == "board":
        from edgeaccel.runtime.board import Board

        return Board(image.machine, options.device or "/dev/xdma0", progress=_Loading())
    from edgeaccel.runtime.check import CheckedDevice
    from edgeaccel.runtime.rtl import RtlDevice

    _say("building the simulation, if it is not there yet")
    device = RtlDevice(
        image.machine,
        memory=options.memory,
        checks=options.check,
        watch=options.trace is not None,
        vcd=options.vcd is not None,
    )
    if options.vcd is not None:
        options.vcd.unlink(missing_ok=True)
        device.write_vcd(options.vcd, options.vcd_from, options.vcd_cycles)
    return CheckedDevice(device, GoldenDevice(image.machine)) if options.check else device


def _rtl(device):
    """The RTL that a device is or has; None if it has none."""
    device = getattr(device, "one", device)
    return device if hasattr(device, "mark") else None


class _Session:
    """What comes of a prompt while it runs: text, progress, figures."""

    def __init__(self, options, device, tokenizer, prompt):
        self.options, self.device, self.tokenizer, self.prompt = options, device, tokenizer, prompt
        self.rtl = _rtl(device)
        self.tokens, self.identical, self.stop = [], None, None
        self._printed = ""
        self._start = self._said = time.perf_counter()
        self._begin = self._mark()
        self._first = self._last = None  # marks behind the first and the last token
        self._print(tokenizer.decode(prompt))

    def on_token(self, token):
        """Take a token as it comes."""
        self.tokens.append(token)
        self._last = self._mark()
        self._first = self._first or self._last
        self._print(self.tokenizer.decode([*self.prompt, *self.tokens]))
        self._progress()

    def finish(self, stop):
        """Take how it ended."""
        self.stop = stop

    def end_text(self):
        """The rest of the text, and the end of its line."""
        self._print(self.tokenizer.decode([*self.prompt, *self.tokens]), is_end=True)
        print(flush=True)

    def _mark(self):
        """(cycles, mark of the ports or None)"""
        if self.rtl is None:
            return self.device.counters()["cycles"], None
        return self.rtl.cycles, self.rtl.mark()

    def _print(self, text, *, is_end=False):
        if not is_end:  # a character may come in several tokens
            text = text.rstrip("\ufffd")
        print(text[len(self._printed) :], end="", flush=True)
        self._printed = text

    def _progress(self):
        now = time.perf_counter()
        if now - self._said < PROGRESS_SECONDS or (sys.stdout.isatty() and sys.stderr.isatty()):
            return
        self._said = now
        rate = len(self.tokens) / (now - self._start)
        _say(f"{len(self.tokens)} of {self.options.tokens} tokens, {rate:.2f} tokens/s")

    def record(self, image, problem):
        """What the JSON holds."""
        seconds = time.perf_counter() - self._start
        options = self.options
        record = {
            "engine": options.engine,
            "preset": _preset(image.machine),
            "model": image.manifest["origin"],
            "formats": image.manifest["formats"],
            "cache": image.manifest["cache_format"],
            "prompt": options.prompt,
            "prompt_tokens": len(self.prompt),
            "text": self._printed,
            "tokens": self.tokens,
            "stop": self.stop.reason.value if self.stop else None,
            "identical": self.identical,
            "problem": problem,
            "seconds": seconds,
            "tokens_per_second": len(self.tokens) / seconds,
            "beat_share": None,
        } | self._figures(seconds)
        if options.check:
            record["compared_tokens"] = self.device.tokens
        return record

    def _figures(self, seconds):
        """Cycles, and what the ports could have given; of tokens from the second one on if there is one."""
        cycles = self._mark()[0] - self._begin[0]
        figures = {
            "cycles": cycles,
            "cycles_per_token": None,
            "cycles_are": CYCLES[self.options.engine],
        }
        if self.rtl is not None:
            figures |= {"memory": self.options.memory, "cycles_per_second": cycles / seconds}
        if self._first is None:
            return figures
        figures["prompt_cycles"] = self._first[0] - self._begin[0]
        since, until, count = self._first, self._last, len(self.tokens) - 1
        if not count:
            since, count = self._begin, 1
        figures["cycles_per_token"] = (until[0] - since[0]) / count
        if self.rtl is None:
            return figures
        ports = self.rtl.traffic(since[1], until[1])
        array = [port for port in ports.values() if port["is_array"]]
        deliverable = sum(port["deliverable"] for port in array)
        figures["beat_share"] = sum(port["beats_read"] for port in array) / deliverable if deliverable else None
        figures["ports"] = ports
        return figures

    def summary(self, record):
        parts = [f"{len(self.tokens)} tokens in {record['seconds']:.1f} s, {record['tokens_per_second']:.2f} tokens/s"]
        if record["cycles_per_token"]:
            parts.append(f"{record['cycles_per_token']:.0f} cycles a token ({record['cycles_are']})")
        if "cycles_per_second" in record:
            parts.append(f"{record['cycles_per_second']:.0f} cycles/s simulated")
        if record["beat_share"]:
            parts.append(f"{100 * record['beat_share']:.1f} % of deliverable beats")
        if record["identical"]:
            parts.append(f"identical to the golden machine after each of {record['compared_tokens']} tokens")
        return "; ".join(parts)


class _Loading:
    """Says now and then how much of an image is loaded."""

    def __init__(self):
        self._said = time.perf_counter()

    def __call__(self, done, total):
        if time.perf_counter() - self._said > PROGRESS_SECONDS:
            self._said = time.perf_counter()
            _say(f"{done / 1e6:.0f} of {total / 1e6:.0f} MB")


def _preset(built):
    from edgeaccel.machine import MACHINES

    return next((name for name, machine in MACHINES.items() if machine == built), "custom")


def _say(text):
    print(text, file=sys.stderr, flush=True)


if __name__ == "__main__":
    sys.exit(main())

"""Tokens behind a prompt."""

from dataclasses import dataclass

import numpy as np

from edgeaccel.runtime.device import DeviceError, Stop, StopReason

__all__ = ["Generated", "check_prompt", "generate", "read_logits"]


@dataclass(frozen=True, kw_only=True)
class Generated:
    """What came of a prompt.

    Attributes
    ----------
    tokens : list of int
        Those behind the prompt, without one that ends the text.
    stop : Stop
        Of the last run, with the cycles of all.
    is_cut : bool
        Whether fewer came than were asked for because the context ended.
    """

    tokens: list[int]
    stop: Stop
    is_cut: bool


def generate(device, image, prompt_tokens, n_tokens, sampler=None, on_token=None):
    """Tokens that follow a prompt, the image being loaded.

    Without a sampler the device chooses the most likely token and decodes on its own, in one run. With one, each token
    is a run: the host reads the logits and writes the token.

    Parameters
    ----------
    device : Device
    image : Image
    prompt_tokens : list of int
    n_tokens : int
        At most; a token that ends the text ends it before, and so does the end of the context.
    sampler : function of float32 logits, optional
        As `Sampler`; gives a token.
    on_token : function of a token, optional
        Called with each as it comes. If it returns True, no more are made.

    Returns
    -------
    Generated

    Raises
    ------
    ValueError
        If the prompt is empty, does not fit or has a token that the model lacks.
    DeviceError
        If the device stopped with an error.
    """
    positions = image.manifest["positions"]
    prompt = check_prompt(image, prompt_tokens)
    if n_tokens < 1:
        raise ValueError(f"n_tokens must be at least 1, not {n_tokens!r}")
    limit = min(len(prompt) + n_tokens - 1, positions)
    device.write_tokens(0, prompt)
    run = _sampled if sampler is not None else _greedy
    tokens, stop = run(device, image, len(prompt), limit, sampler, on_token)
    if stop.reason is StopReason.ERROR:
        raise DeviceError(stop)
    is_cut = stop.reason is StopReason.LIMIT and len(tokens) < n_tokens
    return Generated(tokens=tokens, stop=stop, is_cut=is_cut)


def check_prompt(image, tokens):
    """The tokens as a list, if they can be a prompt.

    Raises
    ------
    ValueError
        Else; says what to do.
    """
    tokens = [int(token) for token in tokens]
    positions, vocab_size = image.manifest["positions"], image.manifest["vocab_size"]
    if not tokens:
        raise ValueError("the prompt is empty; give it a token at least, as the one that begins a text")
    if len(tokens) > positions:
        raise ValueError(
            f"the prompt has {len(tokens)} tokens, but the image's context has {positions}; shorten it, or compile the"
            " model with more positions"
        )
    for place, token in enumerate(tokens):
        if not 0 <= token < vocab_size:
            raise ValueError(
                f"token {place} of the prompt must be 0 to {vocab_size - 1}, not {token}; use the model's own tokenizer"
            )
    return tokens


def read_logits(device, image):
    """float32 [vocab_size] that the device has written last."""
    size = 4 * image.manifest["vocab_size"]
    return np.frombuffer(device.read(image.manifest["logits"], size).tobytes(), "<f4")


def _greedy(device, image, prompt, limit, sampler, on_token):
    """(tokens, Stop)"""
    ends, tokens = set(image.manifest["eos"]), []

    def on_batch(batch):
        if batch.token is not None and batch.token not in ends:
            tokens.append(batch.token)
            if on_token is not None and on_token(batch.token):
                device.stop()

    return tokens, device.run(0, prompt, limit, on_batch=on_batch)


def _sampled(device, image, prompt, limit, sampler, on_token):
    """(tokens, Stop)"""
    ends, tokens, position, cycles = set(image.manifest["eos"]), [], 0, 0
    while True:
        stop = device.run(position, prompt, prompt)
        cycles += stop.cycles
        if stop.reason not in (StopReason.LIMIT, StopReason.END_OF_TEXT):
            return tokens, _with(stop, stop.reason, cycles)
        token = sampler(read_logits(device, image))
        if token in ends:
            return tokens, _with(stop, StopReason.END_OF_TEXT, cycles)
        tokens.append(token)
        if on_token is not None and on_token(token):
            return tokens, _with(stop, StopReason.STOPPED, cycles)
        if prompt >= limit:
            return tokens, _with(stop, StopReason.LIMIT, cycles)
        device.write_tokens(prompt, [token])
        position, prompt = prompt, prompt + 1


def _with(stop, reason, cycles):
    return Stop(**vars(stop) | {"reason": reason, "cycles": cycles})

"""Trains the model that tells stories: `python -m edgeaccel.stories.train --out FOLDER`.

Every story that it learns from is new: the generator makes them as they are needed, so nothing is seen twice. Each is a
row of its own that begins at position 0, as when the model is used. Needs PyTorch, the extra `train`; about 50 minutes
on one core. Learning rate and the end follow the steps, or the clock if that is faster.
"""

import argparse
import time
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from torch.nn import functional

from edgeaccel.checkpoint import llama2c
from edgeaccel.checkpoint import tokenizer as tokenizers
from edgeaccel.golden.reference import Reference, greedy
from edgeaccel.stories import CHECKPOINT, TOKENIZER, generator
from edgeaccel.stories import tokenizer as vocabulary

VOCABULARY_SEED, TRAINING_SEED, HELD_OUT_SEED = 1, 2, 3
NO_TOKEN = -100  # what `cross_entropy` leaves out


@dataclass(frozen=True, kw_only=True)
class Sizes:
    """The model, with the names of llama2.c's header."""

    dim: int = 64
    hidden_dim: int = 192
    n_layers: int = 5
    n_heads: int = 4
    n_kv_heads: int = 2
    vocab_size: int = 1024
    seq_len: int = 256

    @property
    def head_dim(self):
        """Dimensions of a head."""
        return self.dim // self.n_heads


class Layer(torch.nn.Module):
    """``x += o(attention(norm(x))); x += down(silu(gate(norm(x))) * up(norm(x)))``"""

    def __init__(self, sizes):
        super().__init__()
        self.sizes = sizes
        self.attention_norm = torch.nn.RMSNorm(sizes.dim, eps=1e-5)
        self.feed_forward_norm = torch.nn.RMSNorm(sizes.dim, eps=1e-5)
        q_dim, kv_dim = sizes.dim, sizes.n_kv_heads * sizes.head_dim
        self.q, self.k, self.v = (torch.nn.Linear(sizes.dim, n, bias=False) for n in (q_dim, kv_dim, kv_dim))
        self.o = torch.nn.Linear(q_dim, sizes.dim, bias=False)
        self.gate, self.up = (torch.nn.Linear(sizes.dim, sizes.hidden_dim, bias=False) for _ in range(2))
        self.down = torch.nn.Linear(sizes.hidden_dim, sizes.dim, bias=False)

    def forward(self, x, cosines, sines):
        """Rows [stories, positions, dim] of such rows."""
        y = self.attention_norm(x)
        q, k, v = (self._heads(project(y)) for project in (self.q, self.k, self.v))
        q, k = (_rotate(heads, cosines, sines) for heads in (q, k))
        k, v = (heads.repeat_interleave(self.sizes.n_heads // self.sizes.n_kv_heads, 1) for heads in (k, v))
        y = functional.scaled_dot_product_attention(q, k, v, is_causal=True)
        x = x + self.o(y.transpose(1, 2).flatten(2))
        y = self.feed_forward_norm(x)
        return x + self.down(functional.silu(self.gate(y)) * self.up(y))

    def _heads(self, y):
        return y.unflatten(2, (-1, self.sizes.head_dim)).transpose(1, 2)


class Decoder(torch.nn.Module):
    """A model of the Llama family.

    Its classifier is not its embedding: names, which are all alike to a model that cannot repeat them yet, became alike
    in a matrix that is both (0.15 from their mean of length 0.8 after 900 steps), with little left to repeat them by.
    """

    def __init__(self, sizes):
        super().__init__()
        self.sizes = sizes
        self.embedding = torch.nn.Embedding(sizes.vocab_size, sizes.dim)
        self.layers = torch.nn.ModuleList(Layer(sizes) for _ in range(sizes.n_layers))
        self.norm = torch.nn.RMSNorm(sizes.dim, eps=1e-5)
        self.classifier = torch.nn.Linear(sizes.dim, sizes.vocab_size, bias=False)
        for name, weight in self.named_parameters():
            if weight.dim() == 2:
                # What is added to x is smaller the more layers add to it (GPT-2).
                deep = (2 * sizes.n_layers) ** -0.5 if name.endswith(("o.weight", "down.weight")) else 1
                torch.nn.init.normal_(weight, std=deep * (0.5 if weight is self.embedding.weight else sizes.dim**-0.5))
        frequencies = 10000.0 ** (-torch.arange(0, sizes.head_dim, 2) / sizes.head_dim)
        angles = torch.arange(sizes.seq_len)[:, None] * frequencies
        self.register_buffer("cosines", angles.cos())
        self.register_buffer("sines", angles.sin())

    def forward(self, tokens):
        """Logits [stories, positions, vocab_size] after tokens [stories, positions]."""
        x, n = self.embedding(tokens), tokens.shape[1]
        for layer in self.layers:
            x = layer(x, self.cosines[:n], self.sines[:n])
        return self.classifier(self.norm(x))

    def write(self, path):
        """Writes a checkpoint in version 0 of llama2.c's format."""
        sizes = self.sizes
        # A negative number of tokens says that there is a classifier.
        header = [getattr(sizes, name) * (-1 if name == "vocab_size" else 1) for name in llama2c.HEADER]
        tensors = [self.embedding.weight]
        for name in llama2c.LAYER_TENSORS:
            last = name.rpartition(".")[2]
            ours = name.replace(".", "_") if last == "norm" else last
            tensors += [getattr(layer, ours).weight for layer in self.layers]
        tensors += [self.norm.weight, self.cosines, self.sines, self.classifier.weight]
        with path.open("wb") as file:
            np.array(header, "<i4").tofile(file)
            for tensor in tensors:
                tensor.detach().numpy().astype("<f4").tofile(file)


def _rotate(heads, cosines, sines):
    first, second = heads[..., 0::2], heads[..., 1::2]
    return torch.stack((first * cosines - second * sines, second * cosines + first * sines), -1).flatten(-2)


def batches(tokenizer, seed, n_stories, seq_len):
    """Tokens and the ones that follow them, [n_stories, positions], without end: the same for the same seed."""
    index = 0
    while True:
        texts = (generator.generate(seed << 32 | i).text for i in range(index, index + n_stories))
        index += n_stories
        rows = [tokens[: seq_len + 1] for tokens in vocabulary.encode(tokenizer, texts)]
        data = np.full((n_stories, max(map(len, rows))), NO_TOKEN)
        for row, tokens in zip(data, rows, strict=True):
            row[: len(tokens)] = tokens
        data = torch.from_numpy(data)
        yield data[:, :-1].clamp(min=0), data[:, 1:]


def loss_of(model, tokens, following):
    """Mean of -log p(token)."""
    logits = model(tokens)
    return functional.cross_entropy(logits.flatten(0, 1), following.flatten(), ignore_index=NO_TOKEN)


def held_out_perplexity(model, tokenizer, n_batches=4):
    """Perplexity of stories that the model never learns from."""
    stories = batches(tokenizer, HELD_OUT_SEED, 64, model.sizes.seq_len)
    with torch.no_grad():
        losses = [loss_of(model, *next(stories)) for _ in range(n_batches)]
    return float(torch.stack(losses).mean().exp())


def sample(folder, prompt):
    """What the model that was written tells, always with its most likely token."""
    checkpoint = llama2c.load(folder / CHECKPOINT)
    tokenizer = tokenizers.load(folder / TOKENIZER, checkpoint.shape.vocab_size)
    tokens = tokenizer.encode(prompt)
    return tokenizer.decode(
        tokens + greedy(Reference(checkpoint), tokens, checkpoint.shape.max_positions - len(tokens))
    )


def optimizers(model):
    """Muon for the layers' matrices (Jordan et al., 2024), which learns from fewer stories; AdamW for all else."""
    matrices = [weight for weight in model.layers.parameters() if weight.dim() == 2]
    others = [weight for weight in model.parameters() if all(weight is not matrix for matrix in matrices)]
    return [
        torch.optim.Muon(matrices, lr=0.02, weight_decay=0.05, momentum=0.95),
        torch.optim.AdamW(others, lr=0.004, betas=(0.9, 0.95), weight_decay=0.0),
    ]


def train(folder, *, steps, minutes, n_stories, threads):
    """Writes the vocabulary and, every few minutes and at the end, the checkpoint."""
    torch.manual_seed(TRAINING_SEED)
    torch.set_num_threads(threads)
    folder.mkdir(parents=True, exist_ok=True)
    sizes = Sizes()
    pieces, scores = vocabulary.build(generator.stories(VOCABULARY_SEED, 4000), sizes.vocab_size)
    vocabulary.write(folder / TOKENIZER, pieces, scores)
    tokenizer = tokenizers.load(folder / TOKENIZER, sizes.vocab_size)
    model = Decoder(sizes)
    print(f"{sum(weight.numel() for weight in model.parameters()):,} parameters", flush=True)
    learners = optimizers(model)
    rates = [learner.param_groups[0]["lr"] for learner in learners]
    start = written = time.monotonic()
    stories = batches(tokenizer, TRAINING_SEED, n_stories, sizes.seq_len)
    for step in range(1, steps + 1):
        passed = max(step / steps, (time.monotonic() - start) / (60 * minutes))
        if passed > 1:
            break
        # Rises, stays, and falls to zero over the second half.
        factor = min(step / 100, 1, 2 * (1 - passed))
        for learner, rate in zip(learners, rates, strict=True):
            learner.param_groups[0]["lr"] = rate * factor
            learner.zero_grad()
        loss = loss_of(model, *next(stories))
        loss.backward()
        torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        for learner in learners:
            learner.step()
        if step % 25 == 0 or step == steps:
            print(f"step {step}, {time.monotonic() - start:.0f} s: loss {loss.item():.4f}", flush=True)
        if time.monotonic() - written > 180:
            _report(model, tokenizer, folder)
            written = time.monotonic()
    _report(model, tokenizer, folder)


def _report(model, tokenizer, folder):
    model.write(folder / CHECKPOINT)
    print(f"held-out perplexity {held_out_perplexity(model, tokenizer):.4f}", flush=True)
    print(sample(folder, "Once upon a time"), flush=True)


def main():
    """The command."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--out", type=Path, required=True, help="folder for the checkpoint and its tokenizer")
    parser.add_argument("--steps", type=int, default=4000, help="batches to learn from (%(default)s)")
    parser.add_argument(
        "--minutes", type=float, default=55, help="longest time, if the steps take longer (%(default)s)"
    )
    parser.add_argument("--stories", type=int, default=16, help="stories in a batch (%(default)s)")
    parser.add_argument("--threads", type=int, default=1, help="cores to use (%(default)s)")
    arguments = parser.parse_args()
    train(
        arguments.out,
        steps=arguments.steps,
        minutes=arguments.minutes,
        n_stories=arguments.stories,
        threads=arguments.threads,
    )


if __name__ == "__main__":
    main()

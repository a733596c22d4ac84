"""Choosing a token by its logits, on the host."""

from dataclasses import dataclass, field

import numpy as np

__all__ = ["Sampler"]


@dataclass
class Sampler:
    """Draws tokens at random, as likely as the model says: softmax of logits / temperature, of some of them.

    Parameters
    ----------
    temperature : float
        More than 0; at 0 the most likely token is taken.
    top_k : int
        If not 0, only the so many most likely.
    top_p : float
        Only the most likely that together have at least this probability.
    seed : int
        The same seed draws the same.

    Raises
    ------
    ValueError
        If a value cannot be.
    """

    temperature: float = 1.0
    top_k: int = 0
    top_p: float = 1.0
    seed: int = 0
    _random: np.random.Generator = field(init=False, repr=False)

    def __post_init__(self):
        if not 0 <= self.temperature < np.inf:
            raise ValueError(f"temperature must be 0 or more, not {self.temperature!r}")
        if self.top_k < 0:
            raise ValueError(f"top_k must be 0 or more, not {self.top_k!r}")
        if not 0 < self.top_p <= 1:
            raise ValueError(f"top_p must be more than 0, at most 1, not {self.top_p!r}")
        self._random = np.random.default_rng(self.seed)

    def __call__(self, logits):
        """A token.

        Raises
        ------
        ValueError
            If a logit is not finite.
        """
        logits = np.asarray(logits, np.float64)
        if not np.isfinite(logits).all():
            place = int(np.flatnonzero(~np.isfinite(logits))[0])
            raise ValueError(f"the logit of token {place} is {logits[place]}: nothing can be drawn")
        if self.temperature == 0:
            return int(np.argmax(logits))
        order = np.argsort(-logits, kind="stable")[: self.top_k or None]
        powers = np.exp((logits[order] - logits[order[0]]) / self.temperature)
        sums = np.cumsum(powers / powers.sum())
        count = int(np.searchsorted(sums, self.top_p)) + 1
        sums = sums[:count]
        return int(order[min(np.searchsorted(sums, self._random.random() * sums[-1], side="right"), len(sums) - 1)])

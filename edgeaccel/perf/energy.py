"""Energy of a token: an estimate, as a range, from what others have published.

    joules = bits of tiles x energy of a bit + seconds x power of everything else

Nothing of it was measured on a board of ours. Each figure has two ends, which are kept apart to the last; where between
them the truth lies, nothing here says.

**A bit from memory** is what the publications below say of the device and its interface.

**Everything else** - logic, multipliers, block memory, clocks, and what the chip takes at rest - comes from the whole
accelerator that is nearest to this one: EdgeLLM (arXiv 2407.21325) reports 85.8 tokens/s and 1.51 tokens/J on a
VCU128, so 56.8 W, at 47% to 49% of 460 GB/s, with 967K LUT, an array at 140 MHz and ports at 280 MHz. Less what its
memory takes by the rule above, `rest` is left. Of that some part is there at rest, and some grows with LUTs x clock;
which, nobody says, so the range spans both:

    rest.low * min(1, LUTs * MHz / (967K * 280))  to  rest.high * max(1, LUTs * MHz / (967K * 140))

Summing up operations instead would flatter: a product of a digit and a mantissa, 5 x 16 bits, and its addition cost
0.35 pJ in 45 nm (0.2 pJ for 8 x 8 bits, 0.1 pJ for adding 32 bits: Horowitz, Computing's energy problem, ISSCC 2014,
figure 1.1.9), 2 mJ for a token of LLaMA2-7B. Nearly all that an FPGA takes goes into its wires, clocks and
configuration.
"""

from dataclasses import dataclass

__all__ = ["BIT_PJ", "EDGELLM_TOKENS_PER_J", "Energy", "Range", "estimate", "luts"]


@dataclass(frozen=True)
class Range:
    """From `low` to `high`, which are added and multiplied each by itself; none is negative."""

    low: float
    high: float

    def __post_init__(self):
        if not 0 <= self.low <= self.high:
            raise ValueError(f"a range must ascend from 0 on, not from {self.low} to {self.high}")

    def __add__(self, other):
        return Range(self.low + other.low, self.high + other.high)

    def __mul__(self, number):
        return Range(self.low * number, self.high * number)

    def inverse(self):
        """Of what is a quantity a unit, units a quantity."""
        return Range(1 / self.high, 1 / self.low)


BIT_PJ = {
    # Low: O'Connor et al., Fine-Grained DRAM, MICRO 2017 (doi 10.1145/3123939.3124545): HBM2, 3.9 pJ/bit. High: Xilinx
    # WP485 v1.1, Virtex UltraScale+ HBM FPGA, table 1: about 7 pJ/bit.
    "hbm2": Range(3.9, 7.0),
    # Horowitz, ISSCC 2014, figure 1.1.9: 1.3 to 2.6 nJ for 64 bits of DRAM. WP485, table 1, has DDR4 at about 27
    # pJ/bit.
    "ddr4-2400": Range(20.3, 40.6),
}
"""Energy of a bit that is read, by the name of the memory model."""

EDGELLM_TOKENS_PER_S, EDGELLM_TOKENS_PER_J = 85.8, 1.51
EDGELLM_LUT, EDGELLM_ARRAY_MHZ, EDGELLM_PORT_MHZ = 967e3, 140.0, 280.0
EDGELLM_BYTES_PER_S = Range(0.47 * 460e9, 0.49 * 460e9)

# LUTs for each lane and row. Low: docs/architecture.md, a group of one row takes 50 a lane, a further row at least its
# datapath's 25.6, attention 7; Yosys' estimates, and no vectors. High: all that a VU37P may have in use (80% of its
# 1303K, so that it can be routed) over `vcu128`'s 4096 lanes x 4 rows.
LUTS_PER_LANE = Range(38.7, 63.6)


@dataclass(frozen=True, kw_only=True)
class Energy:
    """What a run takes, in joules, estimated.

    Attributes
    ----------
    memory, rest : Range
        For tiles, and all else.
    tokens : int
    seconds : float
    """

    memory: Range
    rest: Range
    tokens: int
    seconds: float

    @property
    def joules_per_token(self):
        return (self.memory + self.rest) * (1 / self.tokens)

    @property
    def tokens_per_joule(self):
        return self.joules_per_token.inverse()

    @property
    def watts(self):
        return (self.memory + self.rest) * (1 / self.seconds)


def luts(config):
    """LUTs of a machine, roughly; `python -m edgeaccel.cost` knows better."""
    return LUTS_PER_LANE * (config.groups * config.lanes * config.rows)


def estimate(config, memory, *, bytes, tokens, seconds, lut=None):
    """`Energy` of a run.

    Parameters
    ----------
    config : Config
    memory : str
        Name of the memory model.
    bytes : int
        Of tiles that were read.
    tokens : int
    seconds : float
    lut : int, optional
        LUTs of the machine, if they are known.

    Raises
    ------
    ValueError
        If nothing is known of the memory.
    """
    if memory not in BIT_PJ:
        raise ValueError(f"nothing is known of the energy of {memory}, only of {', '.join(BIT_PJ)}")
    clocked = (luts(config) if lut is None else Range(lut, lut)) * config.core_mhz
    rest = _edgellm_rest()
    watts = Range(
        rest.low * min(1.0, clocked.low / (EDGELLM_LUT * EDGELLM_PORT_MHZ)),
        rest.high * max(1.0, clocked.high / (EDGELLM_LUT * EDGELLM_ARRAY_MHZ)),
    )
    return Energy(
        memory=BIT_PJ[memory] * (8 * bytes * 1e-12),
        rest=watts * seconds,
        tokens=tokens,
        seconds=seconds,
    )


def _edgellm_rest():
    """Watts of EdgeLLM but for its memory."""
    watts = EDGELLM_TOKENS_PER_S / EDGELLM_TOKENS_PER_J
    bit = BIT_PJ["hbm2"]
    rate = EDGELLM_BYTES_PER_S
    return Range(watts - 8e-12 * bit.high * rate.high, watts - 8e-12 * bit.low * rate.low)

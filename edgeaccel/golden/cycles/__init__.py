"""Cycles of the whole machine in plain Python: when each instruction is issued, and when all that moves moves.

No values are worked out, only what decides when something happens: flags, counts, addresses. In each cycle first
`begin(cycle)` of every unit looks at what its registers hold, then `step(cycle)` makes the transfers that follow from
that, so that the order of the units does not count; where it does, the unit says so. What a unit takes has `has_room`
and `put(item)`, what it gives `head` (None if nothing is offered) and `get()`.
"""

"""Page table, cycle by cycle: what is looked up is what was written in cycles before."""

from typing import NamedTuple

__all__ = ["FIND_CYCLES", "PageTable", "Place", "place_of"]

FIND_CYCLES = 12  # of `PageFinder`: asking, looking, three products of three cycles, telling


class PageTable:
    """Entries for all sequences.

    A write can be seen from the cycle after it on, which is the next `begin` of those who look up.

    Parameters
    ----------
    entries : int
    """

    def __init__(self, entries=1024):
        self.entries = entries
        self._pages = {}

    def write(self, index, page, valid=True):
        """Write an entry; ready in every cycle."""
        self._pages[index] = page if valid else None

    def lookup(self, index):
        """The page of an entry.

        Raises
        ------
        ValueError
            If there is none: a fault, of which the cycle model tells nothing.
        """
        page = self._pages.get(index) if index < self.entries else None
        if page is None:
            raise ValueError(f"entry {index} of the page table of {self.entries} holds no page")
        return page


class Place(NamedTuple):
    """Where a page is: its first word in each port, its scales' first byte, the number of a chunk's first unit."""

    page: int
    scales: int
    unit: int


def place_of(table, cache, chunk):
    """The `Place` of a chunk of a sequence whose `cache` has the fields of `attention.command.cache_view`."""
    number, chunk = chunk >> cache.page_bits, chunk & (1 << cache.page_bits) - 1
    if number >= cache.pages:
        raise ValueError(f"page {number} is past the {cache.pages} pages of the sequence")
    page = table.lookup(cache.table + number)
    words, scales = cache.base + page * cache.page_words, cache.scales + page * cache.page_scale_bytes
    return Place(words, scales, chunk * cache.heads)

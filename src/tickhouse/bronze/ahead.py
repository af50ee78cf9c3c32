"""Reading chains that are long behind: from stores that answer several reads at once faster.

A chain's next key is known only from the object before it. So once a second object of a chain is
wanted, the keys that follow are listed, and their objects fetched ahead. What was guessed wrongly
is not used.
"""

from collections import deque
from itertools import islice
from typing import TYPE_CHECKING, Final

from tickhouse.bronze.chain import is_object
from tickhouse.bronze.store import BulkStore, Store
from tickhouse.model.positions import ChainId

if TYPE_CHECKING:
    from collections.abc import Iterator

CHAINS_MAX: Final = 8
"""Chains that are read ahead at a time: what is held in memory is bounded."""
KEYS_MAX: Final = 500


class ReadAhead:
    """Objects of chains in order, for one pass; nothing is kept from one pass to the next.

    Args:
        store: the lake.
    """

    def __init__(self, store: Store) -> None:
        self._store = store
        self._was_read: set[ChainId] = set()
        self._ahead: dict[ChainId, tuple[deque[str], Iterator[bytes]]] = {}

    def get(self, chain: ChainId, key: str) -> bytes:
        """The object's bytes.

        Raises:
            ObjectMissingError: there is none.
            TransientError: try again.
        """
        if not isinstance(self._store, BulkStore):
            return self._store.get(key)
        self._look_ahead(self._store, chain, key)
        keys, bodies = self._ahead.get(chain, (None, None))
        if keys and bodies is not None:
            if keys[0] == key:
                keys.popleft()
                return next(bodies)
            keys.clear()
        body = self._store.get(key)
        self._was_read.add(chain)
        return body

    def _look_ahead(self, store: BulkStore, chain: ChainId, key: str) -> None:
        """Begin to fetch from this key on, where the chain's object before it was wanted too."""
        if chain not in self._was_read or chain in self._ahead or len(self._ahead) >= CHAINS_MAX:
            return
        listed = (found.key for found in store.list_objects(chain.prefix, start_after=key[:-1]))
        keys = deque(islice(filter(is_object, listed), KEYS_MAX))
        self._ahead[chain] = keys, store.get_many(list(keys))

"""Expert trajectories: how networks move while they are trained on the real data, kept for methods that match that.

`Experts` builds a shard of them under the shared loop, `split` divides many into shards, and `Trajectories` is the
joined view of shards that methods use:

    builders = split(Experts(count=100, epochs=100, kept=61), 10)       # {"experts 0-9": ..., ...}
    trajectories = Trajectories.of([prerequisites[name] for name in builders])
    theta, target = trajectories.vector(3, epoch=7), trajectories.vector(3, epoch=9)
"""

from dataclasses import replace

from ddlib.pretraining.trajectories.experts import Experts
from ddlib.pretraining.trajectories.stored import Trajectories, load, storage_error

__all__ = ["Experts", "Trajectories", "load", "split", "storage_error"]


def split(experts: Experts, shard: int) -> dict[str, Experts]:
    """The same experts in shards of at most `shard`, by names that say which they hold.

    Raises:
        ValueError: `shard` is below 1.
    """
    if shard < 1:
        raise ValueError(f"shard={shard!r}; it must be >= 1")
    end = experts.first + experts.count
    firsts = range(experts.first, end, shard)
    parts = [replace(experts, first=first, count=min(shard, end - first)) for first in firsts]
    return {f"experts {part.first}-{part.first + part.count - 1}": part for part in parts}

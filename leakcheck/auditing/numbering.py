"""One numbering for the stages of a whole audit: what is discovered differs from one configuration to the next."""

from collections.abc import Sequence
from dataclasses import replace

from leakcheck.auditing.examine import Examined


def numbered(examined: Sequence[Examined]) -> list[Examined]:
    """The same, with a number for each stage in the order of the mask's way; a stage has one in all configurations.

    A plan whose stages have numbers of their own keeps them.
    """
    order: dict[tuple, tuple[int, ...]] = {}
    for one in examined:
        for passed in one.lineage.stages.values():
            order.setdefault(passed.identity, passed.order)
    if () in order:
        return list(examined)
    numbers = {identity: number for number, identity in enumerate(sorted(order, key=lambda i: order[i]), start=1)}
    return [_renumbered(one, numbers) for one in examined]


def _renumbered(one: Examined, numbers: dict[tuple, int]) -> Examined:
    stages = {(numbers[p.identity], *spot[1:]): p for spot, p in one.lineage.stages.items()}
    new = {spot: numbers[p.identity] for spot, p in one.lineage.stages.items()}
    checkpoints = [replace(c, stage=new[c.stage, c.path, c.layer]) for c in one.checkpoints]
    return replace(
        one,
        lineage=replace(one.lineage, stages=stages),
        checkpoints=tuple(sorted(checkpoints, key=lambda c: c.stage)),
    )

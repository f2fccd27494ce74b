"""What a conversion will do, for people."""

from collections.abc import Iterator

from workbench.convert.plan import USUAL_LARGEST, Plan
from workbench.progress import amount, count_of
from workbench.settings import shown

_FAR = 1000  # times as large or small, from which images should not lie in one dataset
_NAMED = 5  # files that are refused for one reason


def lines_of(plan: Plan) -> Iterator[str]:
    """Say what a conversion will do, line by line."""
    ask = plan.ask
    splits = [item.split for item in plan.items]
    people = len({item.person for item in plan.items})
    counts = ", ".join(f"{splits.count(name)} {name}" for name in dict.fromkeys(sorted(splits)))
    yield f"source     {shown(ask.source)}: {count_of(len(plan.items))}"
    yield f"dataset    {shown(ask.dataset)}: {counts or 'nothing'}"
    yield f"people     {people}, told apart by {plan.told_apart}; each one's scans in one split"
    if moved := sum(item.scan.split not in (None, item.split) for item in plan.items):
        yield f"moved      {count_of(moved)} from the split that the source gives them, see remarks"
    yield f"scale      {plan.scale:g}, the same for all"
    least, most = plan.extremes or (USUAL_LARGEST, USUAL_LARGEST)
    if not ask.scale and not USUAL_LARGEST / _FAR < least <= most < USUAL_LARGEST * _FAR:
        yield (
            f"           images reach {least:.1g} to {most:.1g} by it, and fastMRI's "
            f"{USUAL_LARGEST}: give scans of another scanner's scale a dataset of their own"
        )
    yield f"to write   {count_of(len(plan.to_do))}, {amount(plan.size, 'B')} of k-space"
    if done := len(plan.items) - len(plan.to_do):
        yield f"there      {count_of(done)}, converted before"
    yield f"private    {shown(ask.private)}: the key of the pseudonyms, and who is who"
    reasons: dict[str, list[str]] = {}
    for refusal in plan.refusals:
        reasons.setdefault(refusal.reason, []).append(refusal.path)
    for reason, paths in reasons.items():
        more = f" and {len(paths) - _NAMED} more" if len(paths) > _NAMED else ""
        yield f"refused    {', '.join(paths[:_NAMED])}{more} {reason}"

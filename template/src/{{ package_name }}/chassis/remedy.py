"""
Values that satisfy every rule together, with few changes.
"""

from collections.abc import Collection, Mapping, Sequence
from itertools import combinations, product

from .rules import Rule

__all__ = ["remedy"]

Values = Mapping[str, float]
# If a value does not fit, it is lowered to the largest of these shares that does.
SHARES = (1, 0.8, 0.6, 0.5, 0.4, 0.3, 0.2, 0.1, 0.05, 0.02, 0.01)


def remedy(
    rules: Sequence[Rule],
    values: Values,
    bounds: Mapping[str, tuple[float, float]],
    keep: Collection[str],
) -> dict[str, float]:
    """
    The settings to change, with their values; nothing if no values satisfy the rules.

    Only settings with *bounds* change, and those to *keep* only if there is no other way: then one
    or two of them if that is enough. The rules are in the order of `RULES`.
    """
    # From the outermost limit inwards.
    limits = [rule.limit for rule in reversed(rules)]
    named = dict.fromkeys(limits + [name for rule in rules for name in rule.fields])
    kept = [name for name in named if name in keep and name in bounds]
    few = [some for size in range(min(len(kept), 3)) for some in combinations(kept, size)]
    for touched, digits in product([*few[:200], tuple(kept)], (0, 1, 3)):
        free = [name for name in named if name in bounds and (name not in keep or name in touched)]
        # The smallest values that can work: if these break a rule, all others do.
        least = {name: bounds[name][0] for name in free}
        most = {name: bounds[name][1] for name in free}
        best = _raised(rules, {**values, **least}, most, digits)
        aim = _raised(rules, values, most, digits)
        if _hold(rules, best):
            for name in free:
                shares = (max(float(f"{aim[name] * share:.6g}"), least[name]) for share in SHARES)
                fits = (best | {name: one} for one in shares)
                best = next((one for one in fits if _hold(rules, one)), best)
            for name in [*free[::-1], *free]:
                usual = best | {name: values[name]}
                best = usual if _hold(rules, usual) else best
            return {name: best[name] for name in values if best[name] != values[name]}
    return {}


def _hold(rules: Sequence[Rule], values: Values) -> bool:
    return all(rule.holds(values) for rule in rules)


def _raised(rules: Sequence[Rule], values: Values, most: Values, digits: int) -> dict[str, float]:
    """
    The values with each limit raised as far as its rules need it, and *most* lets it.
    """
    raised = dict(values)
    for rule in rules:
        if rule.limit in most and not rule.holds(raised):
            raised[rule.limit] = min(rule.enough(raised, digits), most[rule.limit])
    return raised

"""
What a check finds: a result, what was observed, and where to go next.
"""

import re
from dataclasses import dataclass
from enum import StrEnum

__all__ = ["Finding", "Result", "fails", "hide", "judge", "not_yet", "nothing", "passes", "unknown"]


class Result(StrEnum):
    """
    The words of the table and of the JSON.
    """

    PASS = "pass"  # noqa: S105  # no password
    FAIL = "fail"
    # Can't be known in a project that was just made; fails once the service declares its tier.
    NOT_YET = "not yet"
    # Does not count here: another tier's, or waived.
    SKIP = "skip"
    # There is nothing to look at, such as a service without a job.
    NOTHING = "does not apply"
    # Could not be looked at, such as a server that does not answer.
    UNKNOWN = "unknown"
    # Did not end within its limit, as on a busy machine.
    SLOW = "slow"


@dataclass(frozen=True, kw_only=True)
class Finding:
    """
    *evidence* is what was observed, or why nothing was; *next* a command to run or a file to edit.
    """

    result: Result
    evidence: str
    next: str = ""


def passes(evidence: str) -> Finding:
    return Finding(result=Result.PASS, evidence=evidence)


def fails(evidence: str, *, next: str) -> Finding:  # noqa: A002  # the member's name
    return Finding(result=Result.FAIL, evidence=evidence, next=next)


def not_yet(evidence: str, *, next: str) -> Finding:  # noqa: A002  # as above
    return Finding(result=Result.NOT_YET, evidence=evidence, next=next)


def nothing(evidence: str) -> Finding:
    return Finding(result=Result.NOTHING, evidence=evidence)


def unknown(evidence: str, *, next: str) -> Finding:  # noqa: A002  # as above
    return Finding(result=Result.UNKNOWN, evidence=evidence, next=next)


def judge(faults: list[str], evidence: str, *, next: str, looked: object = True) -> Finding:  # noqa: A002  # as above
    """
    Passes without *faults*, which are as many sentences; but if *looked* is 0 or empty, the check
    does not apply.
    """
    if faults:
        return fails("; ".join([*faults, evidence]), next=next)
    return passes(evidence) if looked else nothing(f"nothing to look at: {evidence}")


def hide(text: str) -> str:
    """
    *text* without what may be a user's password in URLs, whatever that is made of.
    """
    return re.sub(r"://[^\s'\"`]*@", "://…@", text)

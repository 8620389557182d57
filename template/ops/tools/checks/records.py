"""
Checks of what was written down: after incidents, and for callers.
"""

from ops.tools import envelope, postmortem
from ops.tools.finding import Finding, fails, judge, not_yet, passes
from ops.tools.project import Project

__all__ = ["envelope_current", "postmortem_actions"]


def envelope_current(project: Project) -> Finding:
    """
    ops/envelope.md says what settings and declaration say.
    """
    write = f"`{envelope.COMMAND}`, and commit it"
    path = project.root / envelope.PATH
    if not path.exists():
        return not_yet(f"{envelope.PATH} was not written yet", next=write)
    if path.read_text(encoding="utf-8") != envelope.envelope(project):
        return fails(f"{envelope.PATH} is stale", next=write)
    return passes(f"{envelope.PATH} is what the command writes")


def postmortem_actions(project: Project) -> Finding:
    """
    Each action of a postmortem has an owner and a date, and none is overdue.
    """
    folder = project.root / "ops" / "postmortems"
    count = len([*folder.glob("*.md")]) - (folder / postmortem.TEMPLATE).exists()
    faults = postmortem.faults(folder, project.now.date())
    command = "`uv run python -m ops postmortem check`"
    return judge(faults, f"{count} postmortems", next=command, looked=count)

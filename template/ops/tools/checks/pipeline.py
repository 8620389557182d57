"""
Checks of what runs without people.
"""

from ops.tools.finding import Finding, not_yet, passes
from ops.tools.project import Project

__all__ = ["audit_scheduled", "ci_present"]

_PIPELINES = (".github/workflows/*.y*ml", ".gitlab-ci.yml", ".ci/gitlab.yml", ".ci/steps")


def ci_present(project: Project) -> Finding:
    """
    A pipeline calls `.ci/run`.
    """
    files = project.texts(*_PIPELINES)
    found = [name for name, text in files.items() if ".ci/run" in text]
    if not found:
        return not_yet("no pipeline calls .ci/run", next="call .ci/run, or waive this saying where")
    return passes(f"{', '.join(found)} call .ci/run")


def audit_scheduled(project: Project) -> Finding:
    """
    A pipeline looks by a schedule whether dependencies have known vulnerabilities.
    """
    files = project.texts(*_PIPELINES)
    found = [name for name, text in files.items() if "schedule" in text and "audit" in text]
    if not found:
        return not_yet("no pipeline audits by a schedule", next="`.ci/run audit` once a day")
    return passes(f"{', '.join(found)} has a schedule")

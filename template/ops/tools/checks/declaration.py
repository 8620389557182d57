"""
Checks of what people declared.
"""

import re

from ops.tools.finding import Finding, judge, not_yet, passes
from ops.tools.project import Project

__all__ = ["declaration_complete", "dependencies_declared", "owner_named", "two_people"]

_FILE = "ops/service.yaml"


def declaration_complete(project: Project) -> Finding:
    """
    Nothing in ops/service.yaml is left in angle brackets.
    """
    left = [path.removeprefix("spec.") for path in project.declaration.placeholders]
    if left:
        lines = [project.declaration.where(path).rpartition(":")[2] for path in left]
        said = ", ".join(f"{path} (line {line})" for path, line in zip(left, lines, strict=True))
        return not_yet(f"still to say: {said}", next=f"fill them in: {_FILE}")
    return passes("no placeholder is left")


def two_people(project: Project) -> Finding:
    """
    Owner and second are named, and are two.
    """
    names = [project.said("people.owner"), project.said("people.second")]
    if not all(names):
        return not_yet("owner or second is not named", next=f"name two people: {_FILE}")
    owner, second = (" ".join(str(name).casefold().split()) for name in names)
    faults = ["owner and second are the same person"] if owner == second else []
    return judge(faults, f"{names[0]}, {names[1]}", next=f"name somebody else: {_FILE}")


def owner_named(project: Project) -> Finding:
    """
    CODEOWNERS and the declaration name a team.
    """
    rules = [line for line in project.lines("CODEOWNERS") if line and line[0] != "#"]
    owner = project.said("owner")
    if not rules or not owner or "your-team" in {owner} | {*" ".join(rules).split("@")}:
        return not_yet(
            f"CODEOWNERS says {rules}, {_FILE} {owner!r}", next="name the team in both files"
        )
    return passes(f"CODEOWNERS says {rules}, {_FILE} {owner!r}")


def dependencies_declared(project: Project) -> Finding:
    """
    What is called over the network has a limit, which is a setting, and a fallback.
    """
    if not project.settings:
        return not_yet("the settings are not complete", next="see `configuration`")
    declared = {each["name"]: each for each in project.said("dependencies") or []}
    source = "\n".join(project.texts(f"src/{project.package}/*.py").values())
    called = {*re.findall(r"\bDependency\(\s*\"([^\"]+)\"", source)}
    called |= {"postgresql"} if project.has_database else set()
    # That of the example is not called until somebody sets its URL.
    if not project.settings.get("APP_ANNOUNCE_URL"):
        called.discard("announcer")
    faults = [f"{name} is not declared" for name in sorted(called - declared.keys())]
    for name, each in declared.items():
        if each.get("limit") not in project.settings:
            faults.append(f"{name}: limit {each.get('limit')!r} is no setting")
        if not each.get("fallback"):
            faults.append(f"{name}: no fallback")
    evidence = ", ".join(f"{name} within {each['limit']}" for name, each in declared.items())
    said, declare = evidence or "it calls nobody", f"dependencies in {_FILE}"
    return judge(faults, said, next=declare, looked=evidence)

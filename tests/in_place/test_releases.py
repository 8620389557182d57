"""
Releases are named once, and never moved.
"""

import re
import tomllib

from harness import ROOT
from releases import RELEASES, git

HEADING = re.compile(r"^## (\d+\.\d+\.\d+) \(\d{4}-\d\d-\d\d\)$", re.MULTILINE)


def test_releases_are_in_the_changelog() -> None:
    """
    What releases.toml names, CHANGELOG.md tells of, newest first; the project's version is the
    newest.
    """
    told = HEADING.findall((ROOT / "CHANGELOG.md").read_text())
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]

    # The commit that makes a release can't name itself: the next one does.
    assert [*reversed(RELEASES)] in (told, told[1:])
    assert project["version"] == told[0]


def test_release_is_what_it_was() -> None:
    """
    The commit of a release comes before this one and has its version, so a tag was never moved.
    """
    for version, commit in RELEASES.items():
        project = git("show", f"{commit}:pyproject.toml", cwd=ROOT)

        git("merge-base", "--is-ancestor", commit, "HEAD", cwd=ROOT)
        assert tomllib.loads(project)["project"]["version"] == version

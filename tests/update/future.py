"""
A next release that is nastier than ours will be: it changes something in every file, and around
everything that is the team's.
"""

import re
import shutil
from collections.abc import Callable
from pathlib import Path

from harness import ROOT
from releases import git

__all__ = ["FUTURE", "make_future"]

FUTURE = "100.0.0"

# `Yours below` and what follows it are the team's.
COMMENT = re.compile(r"^ *# (?!Yours below|syntax=|fmt:)[^{}\n]{9,}$", re.MULTILINE)
RULE = re.compile(r"^- .*[^.]\.$", re.MULTILINE)
BOUND = re.compile(r'^(    "[a-z][^"\n]*,<)([0-9]+)((\.[0-9]+)*(; [^"]*)?")', re.MULTILINE)
END_OF_BLOCK = "    #\n    # Yours below.\n"

QUESTION = """pager:
  type: str
  help: Who is woken
  default: nobody

_message_after_copy: |
"""

SETTING = """#
# Who is woken. [text]
# APP_PAGER=nobody
#
# Yours below.
"""


def make_future(folder: Path) -> Path:
    """
    The template as that release has it, in *folder*, which must not be there.
    """
    names = git("ls-files", "-z", "--cached", "--others", "--exclude-standard", cwd=ROOT)
    for name in names.split("\0"):
        if name.startswith(("template/", "questions/", "copier.yml")) and (ROOT / name).is_file():
            (folder / name).parent.mkdir(parents=True, exist_ok=True)
            shutil.copy(ROOT / name, folder / name)
    for path in (folder / "template").rglob("*"):
        if path.is_file() and path.stat().st_size:
            path.write_text(_next(path.name.removesuffix(".jinja"), path.read_text()))
    # Where a team may have the same file, and where it may have edited one.
    (folder / "template/tests/system/test_next.py").write_text('"""\nNext.\n"""\n')
    (folder / "template/deploy/compose/role.sh").unlink()
    pipeline = folder / "template/.github/workflows/ci.yml.jinja"
    _change(pipeline, lambda text: re.sub("checkout@[0-9a-f]{40}", f"checkout@{'0' * 40}", text))
    _change(folder / "copier.yml", lambda text: text.replace("_message_after_copy: |\n", QUESTION))
    organisation = folder / "questions/organisation.jinja"
    _change(organisation, lambda text: text.replace("-slim-trixie'", "-slim-trixie-next'"))
    return folder


def _next(name: str, text: str) -> str:
    """
    The next text of a file of any owner, for seeds are not to arrive, whatever is in them.
    """
    ours, marker, yours = (
        text.partition("# Yours below.\n")
        if name == ".env.example"
        else (
            text,
            "",
            "",
        )
    )
    ours = COMMENT.sub(r"\g<0> Next.", ours)
    changes: dict[str, Callable[[str], str]] = {
        "AGENTS.md": lambda text: RULE.sub(r"\g<0> Always.", text),
        "Dockerfile": lambda text: re.sub(r"(trixie|uv:0\.13)", r"\1-next", text),
        "pyproject.toml": _next_dependencies,
        "sums": lambda text: re.sub(r"(?m)^.{8}", "00000000", text),
    }
    ours = changes.get(name, _next_line)(ours)
    text = ours + marker + yours
    return text.replace("#\n# Yours below.\n", SETTING) if name == ".env.example" else text


def _next_line(text: str) -> str:
    """
    A word more in what JSON has instead of comments, in a docstring's first line, in Markdown.
    """
    text = re.sub(r'^( *"description": ")', r"\1Next: ", text, count=1, flags=re.MULTILINE)
    text = re.sub(r'\A"""\n(.*)', r'"""\n\1 Next.', text)
    text = re.sub(r"\A((?:\{%.*\n)?# (?!.* Next\.$).*)", r"\1, next", text)
    text = re.sub(r"\A(\* text|root) ?=", r"# Next.\n\1=", text)
    return re.sub(r"(?m)^\.env$", ".env\n.env.next", text)


def _next_dependencies(text: str) -> str:
    """
    Every upper bound of ours is higher, of each block the last is gone, and a new one is there.
    """
    text = BOUND.sub(lambda found: f"{found[1]}{int(found[2]) + 1}{found[3]}", text)
    text = text.replace('    "httpx2>=2.16,<4",\n', "").replace(
        '    "markdown-it-py>=4.2,<6",\n', ""
    )
    assert '"httpx2>=' not in text
    assert "markdown-it-py" not in text
    assert text.count(END_OF_BLOCK) == 2
    return text.replace(END_OF_BLOCK, f'    "anyio>=4,<5",\n{END_OF_BLOCK}')


def _change(path: Path, change: Callable[[str], str]) -> None:
    text = path.read_text()
    path.write_text(change(text))
    assert path.read_text() != text, path

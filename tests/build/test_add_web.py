"""
A process type beside a job that was alone, as docs/how-to/add-web.md has it.
"""

from pathlib import Path

import pytest
from harness import BESIDE_WITH_DATABASE
from pages import World, blocks, commit
from releases import NEXT
from selection import others_nightly

pytestmark = pytest.mark.covers("docs/how-to/add-web.md", "copier.yml", "template/*job_alone*")

HEADING = "Add web or a worker to a job alone"
EVERYTHING = "processes=[web,worker,job]"


@pytest.mark.parametrize(
    ("database", "chosen"),
    others_nightly([("postgresql", EVERYTHING), ("none", "processes=[web,job]")], arguments=2),
)
def test_page_makes_a_service_that_answers(database: str, chosen: str, tmp_path: Path) -> None:
    """
    The commands and the migration of the page make a service whose check is green, with the same
    answers to the tests of the example as one that was generated so.
    """
    world = World(tmp_path / "world")
    project = tmp_path / "order-desk"
    told = f"--quiet --defaults --vcs-ref v{NEXT} --data 'processes=[job]'"
    source = world.upstream.as_uri()
    copy = f"uvx --from copier copier copy {told} --data database={database} {source} {project}"
    world.paste(copy, tmp_path)
    commit(project)
    update, take = blocks("add-web", HEADING)
    (step,) = blocks("add-web", "With a database")

    world.paste(update.replace("processes=[web,job]", chosen), project)
    arrived = {path.name for path in project.glob("src/order_desk/*.py")}
    red = world.paste(".ci/run check", project, check=False)
    world.paste(take, project)
    if database != "none":
        (project / "src/order_desk/migrations/versions/0001_notes.py").write_text(step)
    world.paste("uv lock --quiet", project)
    commit(project)
    world.paste(".ci/run check", project)
    ended = world.paste(
        "uv run --quiet pytest -q tests/test_[nh]*.py tests/system/test_configuration.py", project
    )

    assert {"announcer.py", "domain.py", "routes.py", "web.py"} <= arrived
    assert "page_size_max" in red
    assert " passed" in ended


def test_step_is_that_of_the_example() -> None:
    """
    The migration on the page makes the table that the first migration of other services makes.
    """
    (step,) = blocks("add-web", "With a database")
    seed = (BESIDE_WITH_DATABASE / "migrations" / "versions" / "0001_notes.py").read_text()
    table = step[step.index("        CREATE TABLE notes") : step.index("        )\n") + 10]

    assert table in seed
    assert step.partition("def downgrade")[2].rpartition("op.execute")[2].strip() in seed

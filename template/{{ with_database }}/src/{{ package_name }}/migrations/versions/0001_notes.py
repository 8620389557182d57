"""
The table of the example.
"""

from alembic import op

revision = "0001_notes"
down_revision = None


def upgrade() -> None:
    """
    Make the table.
    """
    op.execute(
        """
        CREATE TABLE notes (
            number bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
            id uuid NOT NULL UNIQUE,
            text text NOT NULL,
            written_at timestamptz NOT NULL
        )
        """
    )


def downgrade() -> None:
    """
    Drop it, with all notes.
    """
    op.execute("DROP TABLE notes")

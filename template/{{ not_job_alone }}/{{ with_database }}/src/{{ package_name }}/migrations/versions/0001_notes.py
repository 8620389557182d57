"""
The table of the example, and the keys with which clients may repeat a request.
"""

from alembic import op

revision = "0001_notes"
down_revision = None


def upgrade() -> None:
    """
    Make the tables.
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
    op.execute(
        """
        CREATE TABLE idempotency_keys (
            key text PRIMARY KEY,
            request bytea NOT NULL,
            answer bytea,
            written_at timestamptz NOT NULL DEFAULT now()
        )
        """
    )
    op.execute("CREATE INDEX idempotency_keys_by_age ON idempotency_keys (written_at)")


def downgrade() -> None:
    """
    Drop them, with all notes.
    """
    op.execute("DROP TABLE idempotency_keys")
    op.execute("DROP TABLE notes")

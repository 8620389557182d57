"""
The keys of work that is done once, however often it is asked for.
"""

from alembic import op

revision = "0001_idempotency_keys"
down_revision = None


def upgrade() -> None:
    """
    Make the table.
    """
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
    Drop it.
    """
    op.execute("DROP TABLE idempotency_keys")

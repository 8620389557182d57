"""
The table of the queue.
"""

from alembic import op

revision = "0002_messages"
down_revision = "0001_notes"


def upgrade() -> None:
    """
    Make the table.
    """
    op.execute(
        """
        CREATE TABLE messages (
            id bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
            name text NOT NULL,
            payload jsonb NOT NULL,
            context jsonb NOT NULL DEFAULT '{}',
            key text,
            enqueued_at timestamptz NOT NULL DEFAULT now(),
            -- May be begun from then on; while it is being handled: when its lease ends.
            ready_at timestamptz NOT NULL DEFAULT now(),
            lease uuid,
            attempts integer NOT NULL DEFAULT 0,
            failures integer NOT NULL DEFAULT 0,
            error text,
            dead_at timestamptz,
            UNIQUE (name, key)
        )
        -- Rows live for moments: clear up after a thousand, not after a fifth of the table.
        WITH (autovacuum_vacuum_threshold = 1000, autovacuum_vacuum_scale_factor = 0.01)
        """
    )
    op.execute("CREATE INDEX messages_ready ON messages (ready_at, id) WHERE dead_at IS NULL")
    op.execute("CREATE INDEX messages_dead ON messages (dead_at) WHERE dead_at IS NOT NULL")


def downgrade() -> None:
    """
    Drop it, with all messages.
    """
    op.execute("DROP TABLE messages")

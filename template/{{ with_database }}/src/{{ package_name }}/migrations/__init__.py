"""
Migrations: `migrate up` applies those that are missing.
"""

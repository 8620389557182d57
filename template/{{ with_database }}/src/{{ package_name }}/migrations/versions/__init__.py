"""
The steps between the states of the database's schema, oldest first.
"""

"""
The service; `README.md` says which files are yours.
"""

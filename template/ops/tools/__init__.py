"""
The tools of `python -m ops`, owned by the template.
"""

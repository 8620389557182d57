"""
What the people who run this service read and run; the template owns the tools, the team the rest.
"""

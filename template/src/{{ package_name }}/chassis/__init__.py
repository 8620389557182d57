"""
The chassis: running gear below the service, owned by the template.

`copier update` replaces this folder; what you change here is reported as drift.
It imports nothing outside itself, so it can move into a library as it is.
"""

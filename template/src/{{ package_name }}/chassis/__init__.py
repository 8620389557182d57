"""
The chassis: running gear below the service, owned by the template.

`copier update` brings its next version. Don't edit it: what you change here stays where an update
does not touch it, conflicts where it does, and nobody is told.
It imports nothing outside itself, so it can move into a library as it is.
"""

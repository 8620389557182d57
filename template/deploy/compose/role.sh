# The first start of PostgreSQL runs this: a role that owns its database and may make others, where
# backups are restored to prove them, and is no superuser.
# Read by the shell of the image, which runs it with `set -e`.
password=$(cat /run/secrets/database_password)
psql --no-psqlrc --quiet --set=ON_ERROR_STOP=1 --username=postgres --dbname=postgres \
    --set=name="$SERVICE" --set=password="$password" <<'SQL'
CREATE ROLE :"name" LOGIN CREATEDB PASSWORD :'password';
CREATE DATABASE :"name" OWNER :"name";
-- Nobody is superuser over the network: `docker compose exec database psql -U postgres` is.
ALTER ROLE postgres PASSWORD NULL;
SQL

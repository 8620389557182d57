. /tmp/pgq/lib.sh; cd /tmp/pgq; export STALL=2 POLL=.5 GRACE=1 ATTEMPTS=3
q "truncate job" ; rm -f d.log
q "insert into job(name) values ('die')"; for i in 1 2 3 4 5; do NAME=D$i timeout 4 /tmp/x/v/bin/python own_worker.py >>d.log 2>&1; done
q "select id,name,attempts,dead_at is not null,right(error,40) from job"; grep -c DIE d.log

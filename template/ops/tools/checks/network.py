"""
Checks that ask the network; none does so for a placeholder.
"""

import os
import re
import socket
import ssl
from urllib.parse import urlsplit

import dns.exception
import dns.resolver
import httpx2
import tldextract

from ops.tools.finding import Finding, fails, judge, not_yet, nothing, unknown
from ops.tools.project import Project
from ops.tools.template import release

__all__ = [
    "backups_recent",
    "certificate",
    "metrics_scraped",
    "name_servers",
    "status_page",
    "template_version",
]

# Of one answer.
_SECONDS = 3.0
_CERTIFICATE_DAYS = 21
_FILL = "fill it in: ops/service.yaml"
# The list that it brings; it is not asked for.
_extract = tldextract.TLDExtract(suffix_list_urls=(), cache_dir=None)


def _domain(address: str) -> str:
    """
    What somebody registered; the host itself where that can't be told.
    """
    host = urlsplit(address).hostname or ""
    return _extract(host).top_domain_under_public_suffix or host


def _addresses(project: Project) -> tuple[str, str] | None:
    address, page = project.said("address"), project.said("status_page")
    return (str(address), str(page)) if address and page else None


def _no_address(project: Project) -> Finding:
    if "web" not in project.process_types:
        return nothing("nothing of it is called over HTTP")
    return not_yet("spec.address or spec.status_page is not declared", next=_FILL)


def status_page(project: Project) -> Finding:
    """
    The status page has https, and another registrable domain than the service.
    """
    if not (addresses := _addresses(project)):
        return _no_address(project)
    service, page = map(_domain, addresses)
    faults = [] if addresses[1].startswith("https://") else ["it is not https"]
    faults += ["both are on one domain"] if service == page else []
    faults += [] if "." in page else ["it has no domain that the world knows"]
    return judge(faults, f"service on {service}, status page on {page}", next=_FILL)


def _name_servers(domain: str) -> set[str]:
    """
    The registrable domains of those that answer for *domain*; raises dns.exception.DNSException.
    """
    named = os.environ.get("OPS_RESOLVER", "")
    resolver = dns.resolver.Resolver(configure=not named)
    if named:
        asked = urlsplit(f"//{named}")
        resolver.nameservers, resolver.port = [asked.hostname or ""], asked.port or 53
    answer = resolver.resolve(domain, "NS", lifetime=_SECONDS)
    return {_domain(f"//{str(each.target).rstrip('.')}") for each in answer}


def name_servers(project: Project) -> Finding:
    """
    Those who answer for the status page's domain are others than those of the service's.
    """
    if not (addresses := _addresses(project)):
        return _no_address(project)
    try:
        service, page = (_name_servers(_domain(each)) for each in addresses)
    except dns.exception.DNSException as error:
        return unknown(f"{type(error).__name__}: {error}", next="try again where names resolve")
    both = service & page
    return judge(
        [f"both depend on {', '.join(sorted(both))}"] if both else [],
        f"service: {', '.join(sorted(service))}; status page: {', '.join(sorted(page))}",
        next="move the status page to another provider of names",
    )


def certificate(project: Project) -> Finding:
    """
    The certificate of spec.address is trusted, and valid for more than 21 days.
    """
    if not (address := project.said("address")):
        return _no_address(project)
    url = urlsplit(str(address))
    if url.scheme != "https":
        return fails(f"{address} is not https", next=_FILL)
    context = ssl.create_default_context(cafile=os.environ.get("OPS_CA_FILE"))
    host = url.hostname or ""
    try:
        with (
            socket.create_connection((host, url.port or 443), timeout=_SECONDS) as plain,
            context.wrap_socket(plain, server_hostname=host) as secured,
        ):
            ends = str((secured.getpeercert() or {})["notAfter"])
    except ssl.SSLCertVerificationError as error:
        return fails(f"{host}: {error.verify_message}", next="renew it, or set OPS_CA_FILE")
    except OSError as error:
        return unknown(f"{host}: {error}", next=f"is {address} reachable from here?")
    days = (ssl.cert_time_to_seconds(ends) - project.now.timestamp()) / 86_400
    faults = [] if days > _CERTIFICATE_DAYS else ["it ends soon"]
    return judge(faults, f"{host}: until {ends}, {days:.0f} days", next="renew the certificate")


def _ask(project: Project, query: str) -> list[float] | Finding:
    """
    The values that Prometheus has; or what there is to say where it was not asked.
    """
    if not (address := project.said("monitoring.prometheus")):
        return not_yet("spec.monitoring.prometheus is not declared", next=_FILL)
    context = ssl.create_default_context(cafile=os.environ.get("OPS_CA_FILE"))
    url = f"{str(address).rstrip('/')}/api/v1/query"
    try:
        answer = httpx2.get(url, params={"query": query}, timeout=_SECONDS, verify=context)
        answer.raise_for_status()
        return [float(each["value"][1]) for each in answer.json()["data"]["result"]]
    except (httpx2.HTTPError, httpx2.InvalidURL, ValueError, LookupError, TypeError) as error:
        said = f"{type(error).__name__}: {error}".splitlines()[0]
        return unknown(f"{address}: {said}", next="is Prometheus reachable from here?")


def metrics_scraped(project: Project) -> Finding:
    """
    Prometheus scrapes this service, and gets answers.
    """
    if not {"web", "worker"} & {*project.process_types}:
        return nothing("a job is gone before somebody scrapes it")
    series = "up" + _labels(job=project.name)
    up = _ask(project, series)
    if isinstance(up, Finding):
        return up
    faults = [] if any(up) else [f"no `{series}` is 1"]
    return judge(faults, f"{sum(up):g} of {len(up)} targets are up", next="its scrape_configs")


def backups_recent(project: Project) -> Finding:
    """
    The backup job, which restores what it made, succeeded within objectives.job_age.
    """
    if not project.has_database:
        return nothing("there is no database")
    if not project.texts(f"src/{project.package}/backup.py"):
        return not_yet(
            "no job makes backups here", next="choose job (`copier update`), or waive it"
        )
    # Whose label `job` it is depends on honor_labels.
    name = "app_job_last_success_timestamp_seconds"
    either = [
        name + _labels(**{"service": project.name, job: "backup"})
        for job in ("exported_job", "job")
    ]
    last = _ask(project, f"max({' or '.join(either)})")
    if isinstance(last, Finding):
        return last
    hours = float((project.said("objectives.job_age") or {}).get("hours", 26))
    age = (project.now.timestamp() - max(last, default=0.0)) / 3600
    if not last:
        return not_yet("no backup has succeeded yet", next="run `job backup`; APP_JOB_METRICS_DIR")
    faults = [] if age < hours else [f"older than {hours:g} h"]
    return judge(faults, f"the last success is {age:.1f} h old", next="the log of `job backup`")


def template_version(project: Project) -> Finding:
    """
    The service is made from the newest release of the template.
    """
    answers = "\n".join(project.lines(".copier-answers.yml"))
    found = dict(re.findall(r"(?m)^(_commit|_src_path): '?([^'\n]+)", answers))
    made, source = found.get("_commit", "unknown"), found.get("_src_path", "unknown")
    if not project.said("tier"):
        return not_yet(f"made from {made}; not asked before the tier is declared", next=_FILL)
    source = source.replace("gh:", "https://github.com/").replace("gl:", "https://gitlab.com/")
    asked = project.git("ls-remote", "--tags", "--refs", "--", source)
    if asked.returncode:
        last = asked.stderr.strip().splitlines() or [""]
        return unknown(f"{source}: {last[-1]}", next="is the template reachable from here?")
    tags = re.findall(r"refs/tags/(\S+)", asked.stdout)
    newest = max(filter(release, tags), key=release, default="unknown")
    faults = ["there is a newer one"] if release(made) < release(newest) else []
    return judge(faults, f"made from {made}, newest is {newest}", next="`copier update`")


def _labels(**labels: str) -> str:
    """
    The selector of a series; braces of an f-string would be the template language's.
    """
    return "{" + ",".join(f'{name}="{value}"' for name, value in labels.items()) + "}"

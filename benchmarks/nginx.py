"""The configuration of nginx as a cache for a registry."""

import getpass
import os
from pathlib import Path

from tests.e2e.support.certificates import PrivateAuthority

# - proxy_cache_lock_timeout: with the default of 5 s, the other clients of a cold blob would ask the upstream too.
# - proxy_cache_valid: manifests by tag may change, so they are valid for a minute, like the default of TAG_TTL. Content
#   by digest never changes.
# - proxy_ssl_name: nginx compares a name and not an address with the certificate of the upstream.
# - ssl_protocols: nginx 1.22 does not use TLS 1.3 by default, and the other servers do.
# - proxy_buffers: with more than the default of 4 KiB, a cold blob takes fewer reads and writes.
_TEXT = """\
{user}daemon off;
worker_processes {workers};
worker_rlimit_nofile 16384;
pid {folder}/nginx.pid;
error_log stderr warn;
events {{ worker_connections 8192; }}
http {{
    access_log {folder}/access.log;
    sendfile on;
    tcp_nopush on;
    keepalive_requests 1000000;
    client_body_temp_path {folder}/body;
    proxy_temp_path {folder}/proxy;
    fastcgi_temp_path {folder}/fastcgi;
    uwsgi_temp_path {folder}/uwsgi;
    scgi_temp_path {folder}/scgi;
    proxy_cache_path {folder}/cache levels=1:2 use_temp_path=off keys_zone=registry:16m max_size=20g inactive=1d;
    upstream registry {{ server {upstream}; keepalive 32; }}
    server {{
        listen 127.0.0.1:{port}{ssl} backlog=1024;
        ssl_certificate {certificate};
        ssl_certificate_key {key};
        ssl_protocols TLSv1.2 TLSv1.3;
        proxy_ssl_trusted_certificate {authority};
        proxy_ssl_verify on;
        proxy_ssl_name localhost;
        proxy_ssl_protocols TLSv1.2 TLSv1.3;
        proxy_http_version 1.1;
        proxy_set_header Connection "";
        proxy_buffers 16 64k;
        proxy_buffer_size 64k;
        proxy_busy_buffers_size 256k;
        proxy_cache registry;
        proxy_cache_lock on;
        proxy_cache_lock_timeout 10m;
        proxy_cache_lock_age 10m;
        proxy_cache_use_stale updating error timeout http_500 http_502 http_503 http_504 http_429;
        location / {{
            proxy_pass {scheme}://registry;
            proxy_cache_key "$uri $http_accept";
            proxy_cache_valid 200 1m;
        }}
        location ~ ^/v2/.+/(blobs|manifests)/sha256: {{
            proxy_pass {scheme}://registry;
            proxy_cache_key "$uri $http_accept";
            proxy_cache_valid 200 30d;
        }}
    }}
}}
"""


def configuration(
    folder: Path, port: int, upstream: str, workers: int, authority: PrivateAuthority, *, serves_tls: bool
) -> str:  # fmt: skip
    # If root starts nginx, its workers would otherwise run as a user who cannot read the folder.
    user = f"user {getpass.getuser()};\n" if os.geteuid() == 0 else ""
    scheme, _, address = upstream.partition("://")
    return _TEXT.format(
        user=user, folder=folder, port=port, upstream=address, scheme=scheme, workers=workers,
        ssl=" ssl" if serves_tls else "", certificate=authority.server.certificate, key=authority.server.key,
        authority=authority.certificate,
    )  # fmt: skip

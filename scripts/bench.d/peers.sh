# Sourced by scripts/bench: the proxies that it compares with, on free ports of loopback, in front of `direct`.

free_port() { python3 -c 'import socket; s = socket.socket(); s.bind(("127.0.0.1", 0)); print(s.getsockname()[1])'; }

answers() { # answers NAME: waits until it does
  local waited
  for ((waited = 0; waited < 100; waited++)); do
    curl --silent --output /dev/null --max-time 1 "$(url "$1")/target" && return
    sleep 0.1
  done
  echo "bench: $1 did not start:" >&2
  cat "$work/$1.err" >&2
  exit 1
}

start_haproxy() {
  local port
  port=$(free_port)
  cat >"$work/haproxy.cfg" <<CONFIG
global
  nbthread $(nproc)
  maxconn 4096
defaults
  mode http
  timeout connect 5s
  timeout client 60s
  timeout server 60s
frontend api
  bind 127.0.0.1:$port
  stick-table type string len 128 size 100k expire 1h store http_req_cnt
  http-request track-sc0 req.hdr(authorization)
  http-request deny deny_status 429 if { sc_http_req_cnt(0) gt 4000000000 }
  default_backend upstream
backend upstream
  http-reuse always
  server one $(url direct | sed 's|http://||')
CONFIG
  haproxy -db -q -f "$work/haproxy.cfg" >"$work/haproxy.out" 2>"$work/haproxy.err" &
  pids+=("$!")
  echo "http://127.0.0.1:$port" >"$work/haproxy.url"
  answers haproxy
}

start_nginx() {
  local port module
  port=$(free_port)
  module=/usr/lib/nginx/modules
  cat >"$work/nginx.conf" <<CONFIG
load_module $module/ndk_http_module.so;
load_module $module/ngx_http_lua_module.so;
worker_processes $(nproc);
daemon off;
pid $work/nginx.pid;
error_log $work/nginx.err warn;
events { worker_connections 4096; }
http {
  access_log off;
  client_body_temp_path $work/nginx-body;
  proxy_temp_path $work/nginx-proxy;
  fastcgi_temp_path $work/nginx-fastcgi;
  uwsgi_temp_path $work/nginx-uwsgi;
  scgi_temp_path $work/nginx-scgi;
  keepalive_requests 1000000000;
  lua_shared_dict counters 64m;
  upstream target {
    server $(url direct | sed 's|http://||');
    keepalive 512;
    keepalive_requests 1000000000;
  }
  server {
    listen 127.0.0.1:$port backlog=4096;
    location / {
      access_by_lua_block {
        local key = ngx.var.http_authorization or "none"
        if ngx.shared.counters:incr(key, 1, 0) > 9e15 then
          return ngx.exit(429)
        end
      }
      proxy_http_version 1.1;
      proxy_set_header Connection "";
      proxy_pass http://target;
    }
  }
}
CONFIG
  nginx -c "$work/nginx.conf" >"$work/nginx.out" 2>"$work/nginx.err" &
  pids+=("$!")
  echo "http://127.0.0.1:$port" >"$work/nginx.url"
  answers nginx
}

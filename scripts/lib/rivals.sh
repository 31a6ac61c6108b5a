# shellcheck shell=bash
# Starting the rivals. Sourced after bench.sh; nothing here installs anything on the system: npm
# packages go to target/bench/npm.
# shellcheck source-path=SCRIPTDIR source=bench.sh disable=SC2154,SC2034

nginx_module=/usr/lib/nginx/modules/ngx_nchan_module.so
npm_home="$PWD/$out/npm"

has_nginx() { command -v nginx >/dev/null || { skip "nginx (Debian: nginx-light)"; return 1; }; }
has_nchan() {
    has_nginx || return 1
    [ -e "$nginx_module" ] || { skip "nchan (Debian: libnginx-mod-nchan)"; return 1; }
}

# start_nginx WORKERS: on port 18090; the pids of its workers are in `server_pid`.
start_nginx() {
    local home="$out/nginx" descriptors load=
    descriptors=$(ulimit -n)
    mkdir -p "$home"
    : >"$home/nchan.inc"
    if [ -e "$nginx_module" ]; then
        load="load_module $nginx_module;"
        cp scripts/rivals/nchan.inc "$home/nchan.inc"
    fi
    sed -e "s|@NCHAN@|$load|" -e "s|@WORKERS@|$1|" -e "s|@DESCRIPTORS@|$descriptors|" \
        -e "s|@CONNECTIONS@|$((descriptors - 200))|" scripts/rivals/nginx.conf >"$home/nginx.conf"
    start nginx 18090 nginx -p "$PWD/$home" -c nginx.conf -e error.log
    local master=$server_pid
    # It listens before it has workers.
    for _ in $(seq 100); do
        if [ "$(pgrep -c -P "$master")" -ge "$1" ]; then break; fi
        sleep 0.05
    done
    server_pid=$(pgrep -P "$master" | paste -sd,)
}

# npm_package NAME: puts it in target/bench/npm unless it is there; false if that cannot be done.
npm_package() {
    [ -d "$npm_home/node_modules/$1" ] && return
    command -v npm >/dev/null || { skip "$1 (npm is missing)"; return 1; }
    mkdir -p "$npm_home"
    npm install --silent --no-audit --no-fund --prefix "$npm_home" "$1" >"$out/npm.log" 2>&1 ||
        { skip "$1 (npm install failed, see $out/npm.log)"; return 1; }
}

# Sets `bun` to a Bun binary.
find_bun() {
    bun=$(command -v bun || true)
    if [ -n "$bun" ]; then return; fi
    npm_package bun || return 1
    bun="$npm_home/node_modules/.bin/bun"
    "$bun" --version >/dev/null 2>&1 ||
        { skip "bun (its npm package came without a binary)"; return 1; }
}

has_centrifugo() {
    command -v centrifugo >/dev/null && return
    skip "centrifugo (go install github.com/centrifugal/centrifugo/v6@v6.9.1, and put it on the PATH)"
    return 1
}

# start_centrifugo: on port 18094, with its unidirectional transports.
start_centrifugo() {
    start centrifugo 18094 centrifugo --config scripts/rivals/centrifugo.json --log.level error
}

# centrifugo_options TRANSPORT: for the load generator, in `options`.
centrifugo_options() {
    options=(--url http://127.0.0.1:18094
        --subscribe-path "/connection/uni_${1/%ws/websocket}?cf_connect={\"subs\":{\"{channel}\":{}}}"
        --publish-url http://127.0.0.1:18094/api/publish --publish-content-type application/json
        --publish-body '{"channel":"{channel}","data":"{data}"}')
}

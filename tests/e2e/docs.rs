//! The commands that README.md and docs/OPERATIONS.md print, run as printed, in a network of their own: its addresses lie
//! on a loopback device that nobody else sees, so port 8080, port 443 and an address that is not loopback are free.
//!
//! What is not run here: `--demo` (`demo.rs`), `./scripts/test` (which runs this), and building.

#![cfg(test)]

use std::path::Path;
use tracktags_tests::script::{folder, run};

/// Lines that are not run here.
const ELSEWHERE: [&str; 5] = [
    "cargo run --release -p tracktags-server -- --demo",
    "./scripts/test",
    "cargo build --release",
    "export PATH=\"$PWD/target/release:$PATH\"",
    "tracktags-server --config tracktags.toml",
];
/// The lines that start a server, which go on in the background.
const SERVERS: [&str; 2] =
    ["./target/release/tracktags-server", "tracktags-server --config /etc/tracktags/tracktags.toml"];

fn doc(name: &str) -> String {
    let file = Path::new(env!("CARGO_MANIFEST_DIR")).join("..").join(name);
    std::fs::read_to_string(&file).unwrap_or_else(|error| panic!("{}: {error}", file.display()))
}

/// The blocks of a language in a document.
fn blocks(text: &str, language: &str) -> Vec<String> {
    let fence = format!("```{language}\n");
    text.split(&fence).skip(1).map(|rest| rest.split("```").next().unwrap().to_owned()).collect()
}

/// A block as it is run here.
fn script(block: &str) -> String {
    let mut lines: Vec<String> = Vec::new();
    for line in block.lines().filter(|line| !ELSEWHERE.contains(line)) {
        if SERVERS.contains(&line) {
            lines.push(format!("{line} >server.out 2>server.err &"));
            lines.push("within grep -q listening server.out".to_owned());
        } else {
            lines.push(line.to_owned());
        }
    }
    lines
        .join("\n")
        .replace("/etc/tracktags", "$PWD/etc")
        .replace("https://example.com/", "http://127.0.0.1:8099/")
}

#[test]
fn the_readmes_commands_lead_to_a_denied_call() {
    let folder = folder();
    let blocks: Vec<_> = blocks(&doc("README.md"), "bash").iter().map(|block| script(block)).collect();
    let calls = blocks.iter().position(|block| block.starts_with("for call in 1 2 3")).unwrap();
    let (before, after) = blocks.split_at(calls);
    let before = before.join("\n").replace(
        "./target/release/tracktags-server",
        "TRACKTAGS__PROXY__TARGET_POLICY=open ./target/release/tracktags-server",
    );
    // The first three may fall into two minutes, the next three then do not.
    let calls = format!(
        "calls() {{ {} }}; said=$(calls); grep -qF '\"status\":\"denied\"' <<<\"$said\" || said=$(calls)\n{}",
        after[0], r#"expect '"status":"allowed"' "$said"; expect '"status":"denied"' "$said""#
    );
    let out = run(folder.path(), &[&before, &calls, &after[1..].join("\n")]);
    assert!(out.contains("api_calls") && out.contains("monthly"), "{out}");
}

#[test]
fn the_operators_commands_work_on_a_server_of_ones_own() {
    let folder = folder();
    let operations = doc("docs/OPERATIONS.md");
    let all = blocks(&operations, "bash");
    let found = |start: &str| {
        script(
            all.iter().find(|block| block.starts_with(start)).unwrap_or_else(|| panic!("no block {start}")),
        )
    };
    let readme: Vec<_> = blocks(&doc("README.md"), "bash").iter().map(|block| script(block)).collect();
    let set_up =
        readme.iter().take_while(|block| !block.starts_with("for call")).cloned().collect::<Vec<_>>();
    let profiles = r#"
mkdir -p home/.config/tracktags; export HOME=$PWD/home
(umask 077; printf '[staging]\nurl = "http://127.0.0.1:8080"\nkey = "%s"\n' "$TRACKTAGS_KEY" >home/.config/tracktags/profiles.toml)
TRACKTAGS_KEY=tk_live_wrong
"#;
    let stop = "kill %2; wait %2 || true";
    let out = run(
        folder.path(),
        &[
            &set_up.join("\n"),
            r#"curl -s -X POST localhost:8080/api/v1/plan_limits -H "Authorization: Bearer $TRACKTAGS_KEY" \
  -H 'Content-Type: application/json' -d '{"metric_name": "api_calls", "limit_value": 9}'"#,
            &found("sqlite3 -cmd \".timeout 5000\" tracktags.db \\\n  \"UPDATE"),
            "tracktags-cli limits list",
            &found("sqlite3 -cmd \".timeout 5000\" tracktags.db \".backup"),
            &found("tracktags-cli verify"),
            &found("tracktags-cli ledger"),
            &found("tracktags-cli doctor"),
            profiles,
            &found("tracktags-cli profiles"),
            stop,
            &found("tracktags-cli migrate"),
            &script(
                &blocks(&doc("docs/GUIDE.md"), "bash")
                    .into_iter()
                    .find(|block| block.starts_with("sqlite3"))
                    .unwrap(),
            ),
        ],
    );
    for said in ["5000", "counters", "no default_metric", "staging"] {
        assert!(out.contains(said), "{said} in {out}");
    }
    let known = [
        "cargo build",
        "sqlite3",
        "tracktags-cli verify",
        "tracktags-cli ledger",
        "tracktags-cli doctor",
        "tracktags-cli migrate",
        "tracktags-cli profiles",
        "install -d",
        "tracktags-server --check",
        "iptables",
    ];
    for block in &all {
        assert!(known.iter().any(|start| block.starts_with(start)), "nothing runs this block: {block}");
    }
}

/// A caller from one address through the proxy: served, and locked out alone after wrong keys.
const THROUGH: &str = r#"
https() { local from=$1; shift; curl -s --interface "$from" --cacert etc/tls.crt --resolve tracktags.example.com:443:10.0.0.4 "$@"; }
at=https://tracktags.example.com
within https "$1" -f "$at/health"
expect OK "$(https "$1" "$at/health")"
admin=(-H "X-Admin-Key: $(cat etc/admin.key)" -H 'Content-Type: application/json')
business=$(https "$1" "${admin[@]}" "$at/api/v1/businesses" -d '{"business_name": "Acme", "email": "ops@acme.example"}' \
  | sed -E 's/.*"business_id":"([^"]+)".*/\1/')
expect '"limit_value":5' "$(https "$1" "${admin[@]}" "$at/api/v1/plan_limits?business_id=$business" -d '{"metric_name": "calls", "limit_value": 5}')"
for _ in $(seq 20); do expect invalid_key "$(https "$1" -H 'Authorization: Bearer tk_live_wrong' "$at/api/v1/usage")"; done
expect too_many_failures "$(https "$1" -H 'Authorization: Bearer tk_live_wrong' "$at/api/v1/usage")"
expect invalid_key "$(https "$2" -H 'Authorization: Bearer tk_live_wrong' "$at/api/v1/usage")"
"#;

#[test]
fn it_serves_behind_nginx_and_haproxy_on_an_address_that_is_not_loopback() {
    let folder = folder();
    let operations = doc("docs/OPERATIONS.md");
    let only = |language: &str, holding: &str| {
        let all = blocks(&operations, language);
        all.into_iter().find(|block| block.contains(holding)).unwrap().replace("/etc/tracktags", "ETC")
    };
    // The proxy's own address, which is a machine of its own elsewhere.
    let nginx = only("nginx", "proxy_pass").replace("proxy_pass", "proxy_bind 10.0.0.4;\n        proxy_pass");
    let nginx = format!(
        "daemon off; pid nginx.pid; error_log stderr; events {{}}\nhttp {{ access_log off; client_body_temp_path t; \
         proxy_temp_path t; fastcgi_temp_path t; uwsgi_temp_path t; scgi_temp_path t;\n{nginx}\n}}\n"
    );
    let haproxy =
        only("haproxy", "backend tracktags").replace("10.0.0.5:8080", "10.0.0.5:8080 source 10.0.0.4");
    for (name, text) in
        [("tracktags.toml", only("toml", "trusted_proxies")), ("nginx.conf", nginx), ("haproxy.cfg", haproxy)]
    {
        std::fs::write(folder.path().join(name), text).unwrap();
    }
    let bash: Vec<_> = blocks(&operations, "bash").iter().map(|block| script(block)).collect();
    let found = |start: &str| bash.iter().find(|block| block.starts_with(start)).unwrap().as_str();
    let place = r#"
sed -i "s|ETC|$PWD/etc|" tracktags.toml nginx.conf haproxy.cfg; mv tracktags.toml etc/
openssl req -x509 -newkey rsa:2048 -nodes -keyout etc/tls.key -out etc/tls.crt -days 2 -subj /CN=tracktags.example.com \
  -addext subjectAltName=DNS:tracktags.example.com 2>/dev/null
cat etc/tls.crt etc/tls.key >etc/tls.pem
"#;
    let through = format!("through() {{\n{THROUGH}\n}}");
    let wall = found("iptables").replace("tracktags", "nobody");
    let _said = run(
        folder.path(),
        &[
            found("install -d"),
            place,
            found("tracktags-server --check"),
            &through,
            "nginx -p $PWD -c $PWD/nginx.conf >nginx.out 2>&1 & proxy=$!",
            "through 192.0.2.7 192.0.2.8",
            "kill $proxy; wait $proxy || true",
            "haproxy -f haproxy.cfg >haproxy.out 2>&1 & proxy=$!",
            "through 192.0.2.9 192.0.2.10",
            &wall,
            "curl -sf http://10.0.0.5:8080/health",
            "if setpriv --reuid nobody curl -s http://10.0.0.5:8080/health; then echo 'the wall lets nobody through' >&2; exit 1; fi",
        ],
    );
}

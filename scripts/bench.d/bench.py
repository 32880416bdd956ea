"""What scripts/bench does in Python: prepare a server, add up its usage, print the table.

    bench.py prepare URL ADMIN_KEY CUSTOMERS KEYS_FILE BUSINESS_KEY_FILE
    bench.py usage URL CUSTOMERS BUSINESS_KEY_FILE
    bench.py report RESULTS
"""

import http.client
import json
import statistics
import sys
import urllib.parse

LIMIT = 9_000_000_000_000_000


class Api:
    """One kept connection to a server."""

    def __init__(self, url, header):
        self.connection = http.client.HTTPConnection(urllib.parse.urlsplit(url).netloc, timeout=30)
        self.header = header

    def send(self, method, path, body=None):
        headers = dict([self.header])
        if body is not None:
            headers["Content-Type"] = "application/json"
            body = json.dumps(body)
        self.connection.request(method, path, body, headers)
        answer = self.connection.getresponse()
        text = answer.read()
        if answer.status >= 300:
            sys.exit(f"{method} {path}: {answer.status} {text.decode(errors='replace')}")
        return json.loads(text)


def bearer(key):
    return ("Authorization", f"Bearer {key}")


def prepare(url, admin_key, customers, keys_file, business_key_file):
    """A business, one monthly limit on it, and as many customers with a key each."""
    admin = Api(url, ("X-Admin-Key", admin_key))
    fields = {"business_name": "Bench", "email": "bench@example.com"}
    business_id = admin.send("POST", "/api/v1/businesses", fields)["business_id"]
    key = admin.send("POST", f"/api/v1/businesses/{business_id}/keys")["api_key"]
    business = Api(url, bearer(key))
    limit = {"metric_name": "api_calls", "limit_value": LIMIT, "limit_period": "monthly"}
    business.send("POST", "/api/v1/plan_limits", limit)
    with open(keys_file, "w", encoding="ascii") as file:
        for number in range(int(customers)):
            made = business.send("POST", f"/api/v1/customers/customer_{number}/keys")
            file.write(made["api_key"] + "\n")
    with open(business_key_file, "w", encoding="ascii") as file:
        file.write(key)


def usage(url, customers, business_key_file):
    """The sum of what all customers used."""
    with open(business_key_file, encoding="ascii") as file:
        business = Api(url, bearer(file.read()))
    total = 0
    for number in range(int(customers)):
        answer = business.send("GET", f"/api/v1/usage?customer_id=customer_{number}")
        total += answer["metrics"][0]["current_value"]
    print(total)


def load_runs(path):
    """Median figures by (subject, connections); failures are summed."""
    runs = {}
    with open(path, encoding="ascii") as file:
        for line in file:
            subject, connections, *figures = line.split()
            runs.setdefault((subject, int(connections)), []).append([int(figure) for figure in figures])
    table = {}
    for name, rows in runs.items():
        table[name] = {
            "rate": statistics.median(row[0] * 1e6 / row[1] for row in rows),
            "p50": statistics.median(row[2] for row in rows) / 1000,
            "p99": statistics.median(row[3] for row in rows) / 1000,
            "status": sum(row[4] for row in rows),
            "socket": sum(row[5] for row in rows),
            "seconds": sum(row[1] for row in rows) / 1e6,
        }
    return table


NAMES = {
    "power_loss": "TrackTags envelope, power_loss",
    "process": "TrackTags envelope, process",
    "track-power_loss": "TrackTags track, power_loss",
    "track-process": "TrackTags track, process",
    "handler": "bare actix handler, no counting",
    "haproxy": "HAProxy, stick table",
    "nginx": "nginx, counter in Lua",
    "bare": "bare hyper envelope, no counting",
    "direct": "the upstream itself",
}
# (subject, connections): the peer it is judged beside, floor and goal.
TARGETS = {
    ("power_loss", 64): ("haproxy", 0.6, 0.72),
    ("power_loss", 256): ("haproxy", None, 0.8),
    ("process", 64): ("haproxy", None, 0.85),
    ("track-power_loss", 64): ("handler", 0.5, 0.65),
    ("track-power_loss", 256): ("handler", None, 0.8),
    ("track-process", 64): ("handler", None, 0.9),
}
PEERS = ("haproxy", "nginx", "bare", "handler")
ADDED_GOAL_MS = 0.15


def verdict(ratio, floor, goal):
    if ratio >= goal:
        return f"goal {goal} reached"
    if floor is None:
        return f"goal {goal} missed"
    return f"floor {floor} {'reached' if ratio >= floor else 'MISSED'}, goal {goal} missed"


def report(results):
    table = load_runs(results)
    print("| subject | connections | requests/s | p50 ms | p99 ms | / HAProxy | / nginx + Lua | / bare envelope | / bare handler "
          "| non-2xx | socket errors | verdict |")
    print("|---|---:|---:|---:|---:|---:|---:|---:|---:|---:|---:|---|")
    direct = table.get(("direct", 1))
    for (subject, connections), row in sorted(table.items(), key=lambda item: (item[0][1], item[0][0])):
        ratios = {}
        for peer in PEERS:
            other = table.get((peer, connections))
            ratios[peer] = row["rate"] / other["rate"] if other else None
        said = ""
        peer, *target = TARGETS.get((subject, connections), (None,))
        if peer and ratios[peer]:
            said = verdict(ratios[peer], *target)
        elif connections == 1 and direct and subject != "direct":
            added = row["p50"] - direct["p50"]
            said = f"adds {added:.3f} ms (goal {ADDED_GOAL_MS}: {'reached' if added <= ADDED_GOAL_MS else 'missed'})"
        shown = {peer: "" if ratio is None else f"{ratio:.2f}" for peer, ratio in ratios.items()}
        print(f"| {NAMES[subject]} | {connections} | {row['rate']:.0f} | {row['p50']:.3f} | {row['p99']:.3f} "
              f"| {shown['haproxy']} | {shown['nginx']} | {shown['bare']} | {shown['handler']} | {row['status']} | {row['socket']} | {said} |")


if __name__ == "__main__":
    COMMANDS = {"prepare": prepare, "usage": usage, "report": report}
    if len(sys.argv) < 2 or sys.argv[1] not in COMMANDS:
        sys.exit(__doc__)
    COMMANDS[sys.argv[1]](*sys.argv[2:])

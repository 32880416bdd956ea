"""What the fuzzer must know that a schema cannot say: ids of things that are there, and rules over several fields.

Valid calls are led to things that exist, so that they get past the first 404; invalid ones stay as they were drawn.
"""

import atexit
import json
import os
import random
from datetime import datetime, timedelta, timezone

import requests
import schemathesis
from hypothesis import strategies as st
from schemathesis.core.parameters import ParameterLocation

URL = os.environ["TRACKTAGS_URL"]
ADMIN = {"X-Admin-Key": os.environ["TRACKTAGS_ADMIN_KEY"]}
BUSINESS = os.environ["TRACKTAGS_BUSINESS"]
TARGET = os.environ["TRACKTAGS_TARGET"]
ROLE = os.environ["TRACKTAGS_ROLE"]
KEY = os.environ["TRACKTAGS_CALLER_KEY"]
# The key that the calls are made with, which no call may end.
CALLER_KEY_ID = os.environ["TRACKTAGS_CALLER_KEY_ID"]
CALLER = os.environ["TRACKTAGS_CUSTOMER"]

CUSTOMER = "customer_1"
METRIC = "calls"
FAR = "2099-12-31T00:00:00Z"

schemathesis.openapi.format("time-zone", st.sampled_from(["UTC", "Europe/Berlin", "Asia/Kathmandu"]))
schemathesis.openapi.format("web-urls", st.sampled_from(["https://a.example/x", "http://a.example, https://b.example"]))

dice = random.Random(0)
session = requests.Session()


def admin(method, path, body=None):
    answer = session.request(method, URL + path, json=body, headers=ADMIN, timeout=30)
    assert answer.status_code < 500, answer.text
    return answer


def here(path):
    return f"{path}{'&' if '?' in path else '?'}business_id={BUSINESS}"


def found(path, items):
    return admin("GET", here(path)).json()[items]


def customer():
    admin("POST", here("/api/v1/customers"), {"customer_id": CUSTOMER})
    return CUSTOMER


def metric():
    admin("POST", here("/api/v1/plan_limits"), {"metric_name": METRIC, "limit_value": 9_000_000, "limit_period": "daily"})
    return METRIC


def limit():
    metric()
    return dice.choice(found("/api/v1/plan_limits", "plan_limits"))["id"]


def plan():
    admin("POST", here("/api/v1/plans"), {"plan_name": "Gold"})
    return dice.choice(found("/api/v1/plans", "plans"))["id"]


def without_keys(path):
    """Revokes the keys of a list, but for the caller's own: two may be live."""
    for key in found(path, "keys"):
        if key["id"] != CALLER_KEY_ID:
            admin("DELETE", here(f"{path}/{key['id']}" if "customers" in path else f"{path}/business/{key['id']}"))


def new_key(path):
    without_keys(path)
    return admin("POST", here(path)).json()["key_id"]


def customer_key():
    return new_key(f"/api/v1/customers/{customer()}/keys")


def business_key():
    return new_key("/api/v1/keys")


def spare_business(deleted):
    made = admin("POST", "/api/v1/businesses", {"business_name": "Spare", "email": "spare@example.com"})
    spare = made.json()["business_id"]
    if deleted:
        admin("DELETE", f"/api/v1/businesses/{spare}")
    return spare


def spare_key():
    """A key that may end itself."""
    if ROLE == "customer":
        return admin("POST", here(f"/api/v1/customers/spare{dice.getrandbits(40)}/keys")).json()["api_key"]
    return admin("POST", f"/api/v1/businesses/{spare_business(False)}/keys").json()["api_key"]


def lead(case):
    """Puts ids that exist into the path, nearly always."""
    for name in case.path_parameters or {}:
        # The fuzzer remembers ids from answers; the caller's own key must live.
        if dice.random() < 0.1 and case.path_parameters[name] != CALLER_KEY_ID:
            continue
        if name == "bid" and case.path == "/api/v1/businesses/{bid}" and case.method == "DELETE":
            value = spare_business(False)
        elif name == "bid" and case.path.endswith("/restore"):
            value = spare_business(True)
        elif name == "bid":
            value = BUSINESS
        elif name == "cid":
            value = customer()
        elif name == "key":
            value = customer_key()
        elif name == "name":
            value = metric() if "/metrics/" in case.path else business_key()
        elif name == "id":
            value = plan() if "/plans/" in case.path else limit()
        else:
            continue
        case.path_parameters[name] = value


def ask(case):
    """The rules of the query."""
    query = case.query
    query.pop("cursor", None)  # nobody can make one up
    if "business_id" in declared(case):
        if ROLE == "admin" or "business_id" in query and dice.random() < 0.5:
            query["business_id"] = BUSINESS
    if "customer_id" in query:
        query["customer_id"] = CALLER if ROLE == "customer" else customer()
    if query.get("scope") == "customer" and ROLE != "customer":
        query["customer_id"] = customer()
    elif query.get("scope") in ("business", "total"):
        query.pop("customer_id", None)
    if "plan_id" in query:
        query["plan_id"] = plan()
    if case.path.endswith("/history"):
        now = datetime.now(timezone.utc)
        for name, days in (("from", 20), ("to", 0)):
            if name in query or "to" in query:
                query[name] = (now - timedelta(days=days)).strftime("%Y-%m-%dT%H:%M:%SZ")


def declared(case):
    return {parameter.name for parameter in case.operation.iter_parameters() if parameter.location == ParameterLocation.QUERY}


def make_room(case):
    """Lets a key be made."""
    if case.method == "POST" and case.path.endswith("/keys"):
        without_keys("/api/v1/keys" if "{cid}" not in case.path else f"/api/v1/customers/{customer()}/keys")


def small(body, name, least=0):
    if isinstance(body.get(name), (int, float)):
        body[name] = abs(int(body[name])) % 1000 + least


def say(case):
    """The rules of the body."""
    body, path = case.body, case.path
    if body.get("expires_at") is not None:
        body["expires_at"] = FAR
    if "/customers" in path and "name" in body:
        body.pop("customer_name", None)
    if path.endswith("/customers") and dice.random() < 0.7:
        body["customer_id"] = f"fuzzed_{dice.getrandbits(40)}"
    if path == "/api/v1/plan_limits" and body.get("plan_id") is not None:
        body["plan_id"] = plan()
        body.pop("customer_id", None)
    if path == "/api/v1/plan_limits/{id}":
        body.pop("plan_id", None)
        body.pop("customer_id", None)
    if path == "/api/v1/metrics":
        define(case)
    if path == "/api/v1/metrics/{name}" and case.method == "PUT":
        small(body, "value")
        small(body, "set_to")
    if path in ("/api/v1/proxy", "/api/v1/check", "/api/v1/track"):
        demand(body)
    if path == "/api/v1/proxy":
        envelope(body)


def define(case):
    body = case.body
    small(body, "initial_value")
    if any(name in body for name in ("limit_operator", "limit_period", "breach_action", "limit_value")):
        body.setdefault("limit_value", 5)
        body.setdefault("limit_period", "monthly")
    if body.get("initial_value"):
        case.query = {**case.query, "scope": "customer", "customer_id": customer()}


def demand(body):
    small(body, "units", 1)
    if dice.random() < 0.8:
        body["metric_name"] = metric()
    if body.get("scope") == "customer" or body.get("customer_id") is not None:
        body["customer_id"] = CALLER if ROLE == "customer" else customer()
    if body.get("scope") == "business":
        body.pop("customer_id", None)


def envelope(body):
    admin("PATCH", here("/api/v1/settings"), {"target_policy": "auto"})
    body["target_url"] = TARGET
    body["method"] = dice.choice(["GET", "head", "POST", "Put", "PATCH", "DELETE", "OPTIONS"])
    if body.get("headers") is not None:
        body["headers"] = {"x-fuzzed": "yes"}
    if body.get("body_base64"):
        body["body"] = "AP8="


@schemathesis.hook
def before_call(context, case, kwargs):
    negative = {where: case.meta is not None and case.meta.is_negative_at(where) for where in ParameterLocation}
    if not negative[ParameterLocation.PATH]:
        lead(case)
        make_room(case)
    if not negative[ParameterLocation.QUERY]:
        ask(case)
    if isinstance(case.body, dict) and not negative[ParameterLocation.BODY]:
        say(case)


@schemathesis.hook
def after_call(context, case, response):
    """Counts answers by operation and status, for the test to see that calls got past the door."""
    counts = tally.setdefault(f"{case.method} {case.path}", {})
    status = str(response.status_code)
    counts[status] = counts.get(status, 0) + 1


tally = {}
atexit.register(lambda: open(os.environ["TRACKTAGS_TALLY"], "w").write(json.dumps(tally)))


@schemathesis.auth(refresh_interval=None)
class Caller:
    """Who calls. A key that ends itself is one of its own each time."""

    def get(self, case, context):
        if context.operation.path == "/api/v1/keys/self" and ROLE != "admin":
            return spare_key()
        return KEY

    def set(self, case, data, context):
        name, value = ("X-Admin-Key", data) if ROLE == "admin" else ("Authorization", f"Bearer {data}")
        case.headers = {**(case.headers or {}), name: value}

//! Who may do what: every operation of the route table, as nobody, a customer, a business and the admin.

#![cfg(test)]

use serde_json::json;
use tracktags_server::{Operation, operations};
use tracktags_tests::http::Response;
use tracktags_tests::{TestApp, new_business};

/// The only codes that say who may not.
const REFUSALS: [&str; 4] = ["unauthorized", "invalid_key", "forbidden", "business_required"];
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Role {
    Nobody,
    Customer,
    Business,
    Admin,
}

/// What the code of a role's refusal is; `None`: it may.
fn expected(operation: &Operation, role: Role) -> Option<&'static str> {
    let names_business = operation.path.contains("{bid}");
    match (operation.who, role) {
        ("Anonymous" | "Observer", _) => None,
        (_, Role::Nobody) => Some("unauthorized"),
        ("Admin" | "Scraper", Role::Admin) => None,
        ("Admin" | "Scraper", _) => Some("forbidden"),
        ("Business" | "KeyKeeper" | "BusinessCaller", Role::Customer) => Some("forbidden"),
        ("Caller" | "Holder" | "BusinessCaller", Role::Admin) => Some("forbidden"),
        ("Business" | "KeyKeeper" | "Reader", Role::Admin) if !names_business => Some("business_required"),
        ("Business" | "KeyKeeper" | "Reader" | "Caller" | "Holder" | "BusinessCaller", _) => None,
        (other, _) => panic!("{other} is no caller that this test knows"),
    }
}

struct Asker {
    app: TestApp,
    customer: String,
    admin: String,
}

impl Asker {
    fn new() -> Self {
        let app = TestApp::new();
        let (customer, admin) = (app.customer_key("customer_123"), app.node.admin_key());
        Self { app, customer, admin }
    }

    /// Calls an operation on its own business, on objects that are not there.
    fn ask(&self, operation: &Operation, role: Role, business: &(String, String)) -> Response {
        let path = operation.path.replace("{bid}", &business.0).replace("{type}", "business");
        let path: Vec<_> =
            path.split('/').map(|part| if part.starts_with('{') { "nothing" } else { part }).collect();
        let (path, body) = (path.join("/"), json!({}));
        let body = (operation.method != "GET").then_some(&body);
        let mut client = self.app.client();
        match role {
            Role::Nobody if body.is_none() => client.send(operation.method, &path, &[], b""),
            Role::Nobody => {
                client.send(operation.method, &path, &[("content-type", "application/json")], b"{}")
            }
            Role::Customer => client.json(operation.method, &path, &self.customer, body),
            Role::Business => client.json(operation.method, &path, &business.1, body),
            Role::Admin => client.admin(operation.method, &path, &self.admin, body),
        }
    }

    fn dump(&self) -> String {
        self.app.node.configuration()
    }
}

const ROLES: [Role; 4] = [Role::Nobody, Role::Customer, Role::Business, Role::Admin];

#[test]
fn who_may_not_is_refused_everywhere_and_changes_nothing() {
    let asker = Asker::new();
    let own = (asker.app.business_id.clone(), asker.app.business_key.clone());
    let before = asker.dump();
    let mut refused = 0;
    for operation in operations() {
        for role in ROLES {
            let Some(code) = expected(&operation, role) else { continue };
            let answer = asker.ask(&operation, role, &own);
            assert_eq!(answer.code(), code, "{operation:?} as {role:?}: {}", answer.text());
            refused += 1;
        }
    }
    println!("{refused} refusals");
    assert!(refused > 100, "{refused}");
    assert_eq!(asker.dump(), before, "refused calls change nothing");
    asker.app.node.verify();
}

#[test]
fn who_may_gets_past_the_door_everywhere() {
    let mut asker = Asker::new();
    let mut passed = 0;
    for operation in operations() {
        for role in ROLES {
            if expected(&operation, role).is_some() {
                continue;
            }
            // A business and a customer of their own each time: some operations end the key they are called with.
            let business = new_business(&asker.app.node);
            asker.customer = asker.app.customer_key(&format!("customer_{passed}"));
            let answer = asker.ask(&operation, role, &business);
            assert!(
                !REFUSALS.contains(&answer.code().as_str()) && (answer.status < 500 || answer.status == 503),
                "{operation:?} as {role:?}: {} {}",
                answer.status,
                answer.text()
            );
            passed += 1;
        }
    }
    println!("{passed} calls let in");
    assert!(passed > 60, "{passed}");
}

//! Keys of the business and of its customers. A key is shown once, by `create`; `check` never repeats it.

use super::{Call, Who};
use crate::Failure;
use crate::args::{Keys, Secret};
use crate::output::{Output, View};
use awc::http::Method;
use serde_json::json;
use std::io::Read;
use tracktags_core::CustomerId;
use tracktags_core::keys::{KEY_BYTES_MAX, ParsedKey};

const CREATED: View = View::Record(&[
    "status",
    "api_key",
    "key_id",
    "key_name",
    "key_type",
    "business_id",
    "customer_id",
    "expires_at",
    "replaces",
    "old_key_expires_at",
    "warning",
]);
const KEYS: View = View::List {
    items: "keys",
    columns: &["id", "key_name", "hint", "scopes", "created_at", "expires_at", "last_used_at"],
};
const REVOKED: View = View::Record(&["status", "key_id"]);

/// `keys …`; `None` where no server is to be asked.
pub(crate) fn keys(command: Keys, output: &mut Output<'_>) -> Result<Option<Call>, Failure> {
    Ok(Some(match command {
        Keys::Create { customer, name, description, expires_at, scopes } => {
            let credentials = description.map(|description| json!({"description": description}));
            of_owner(Method::POST, customer.as_ref(), &[], CREATED).with([
                ("key_name", name.map(Into::into)),
                ("credentials", credentials),
                ("expires_at", expires_at.map(|at| at.to_string().into())),
                ("scopes", (!scopes.is_empty()).then(|| json!(scopes))),
            ])
        }
        Keys::List { customer, page } => of_owner(Method::GET, customer.as_ref(), &[], KEYS).page(page),
        Keys::Revoke { key, customer } => of_owner(Method::DELETE, customer.as_ref(), &[&key], REVOKED),
        Keys::Rotate { key, customer, grace_seconds, expires_at } => {
            of_owner(Method::POST, customer.as_ref(), &[&key, "rotate"], CREATED).with([
                ("grace_seconds", grace_seconds.map(Into::into)),
                ("expires_at", expires_at.map(|at| at.to_string().into())),
            ])
        }
        Keys::Check { key } => return check(&key, output).map(|()| None),
    }))
}

/// A call about an owner's keys; `rest` names one of them, and what to do with it.
fn of_owner(method: Method, customer: Option<&CustomerId>, rest: &[&str], view: View) -> Call {
    let path: Vec<&str> = match customer {
        Some(customer) => vec!["customers", customer.as_str(), "keys"],
        None if rest.is_empty() => vec!["keys"],
        None => vec!["keys", "business"],
    };
    Call::new(Who::Business, method, &[&path, rest].concat(), view)
}

/// `keys check`: form and checksum, offline. Says nothing about whether a server knows the key.
fn check(key: &Secret, output: &mut Output<'_>) -> Result<(), Failure> {
    let mut text = key.expose().to_owned();
    if text == "-" {
        text.clear();
        // One byte more than a key and its line's end may have: what is longer is no key.
        let bytes_max = u64::try_from(KEY_BYTES_MAX).unwrap_or(u64::MAX).saturating_add(3);
        std::io::stdin().lock().take(bytes_max).read_to_string(&mut text)?;
    }
    let parsed = ParsedKey::parse(text.trim()).map_err(|_refused| Failure::NotAKey)?;
    let key_type = if parsed.customer().is_some() { "customer_api" } else { "business" };
    output.value(
        &View::Record(&["key_type", "customer_id", "form", "checksum"]),
        &json!({"key_type": key_type, "customer_id": parsed.customer(), "form": "right", "checksum": "right"}),
    )
}

//! The command line alone, from an empty database to a denied demand and on.

#![cfg(test)]

use serde_json::Value;
use tracktags_tests::{Node, NodeOptions, text};

/// A command line that ran.
struct Ran {
    code: u8,
    out: String,
    err: String,
}

struct Shell {
    url: String,
    admin_key: String,
    key: Option<String>,
}

impl Shell {
    fn run(&self, words: &[&str]) -> Ran {
        let mut arguments = vec!["tracktags-cli", "--url", &self.url];
        match &self.key {
            Some(key) => arguments.extend(["--key", key]),
            None => arguments.extend(["--admin-key", &self.admin_key]),
        }
        arguments.extend(words);
        let (mut out, mut err) = (Vec::new(), Vec::new());
        let code = tracktags_cli::run(arguments.iter().map(Into::into), &mut out, &mut err);
        let text = |bytes| String::from_utf8(bytes).unwrap();
        Ran { code, out: text(out), err: text(err) }
    }

    /// What a command that must succeed answers.
    fn answer(&self, words: &[&str]) -> Value {
        let ran = self.run(&[words, &["--output", "json"]].concat());
        assert_eq!(ran.code, 0, "{words:?}: {}", ran.err);
        serde_json::from_str(&ran.out).unwrap()
    }

    fn refused(&self, words: &[&str], code: &str) {
        let ran = self.run(words);
        assert_eq!((ran.code, ran.out.as_str()), (1, ""), "{words:?}: {}", ran.err);
        assert!(ran.err.starts_with(&format!("error[{code}]: ")), "{words:?}: {}", ran.err);
    }
}

#[test]
fn the_command_line_goes_from_nothing_to_a_denied_demand() {
    let node = Node::start(NodeOptions::default());
    let mut shell = Shell { url: format!("http://{}", node.address), admin_key: node.admin_key(), key: None };
    let made = shell.answer(&["businesses", "create", "--name", "Acme", "--email", "ops@acme.example"]);
    let business = text(&made, "business_id");
    let key = shell.answer(&["--business", &business, "keys", "create"]);
    shell.key = Some(text(&key, "api_key"));
    let limit = ["limits", "create", "--metric", "api_calls", "--value", "2", "--period", "monthly"];
    let limit = text(&shell.answer(&limit), "id");
    let customer = shell.answer(&["keys", "create", "--customer", "customer_123"]);
    assert!(text(&customer, "api_key").starts_with("ck_live_customer_123_"));

    let of = ["--customer", "customer_123"];
    let with = |words: &[&'static str]| [words, &of].concat();
    assert_eq!(shell.answer(&with(&["track", "api_calls"]))["status"], "allowed");
    assert_eq!(shell.answer(&with(&["check", "api_calls", "--units", "2"]))["allowed"], false);
    assert_eq!(shell.answer(&with(&["track", "api_calls", "--units", "1"]))["units"], 1);
    shell.refused(&with(&["track", "api_calls"]), "limit_exceeded");
    let usage = shell.run(&with(&["usage"]));
    assert_eq!(usage.code, 0);
    assert!(usage.out.contains("api_calls") && usage.out.contains("monthly"), "{}", usage.out);

    let _raised = shell.answer(&["limits", "update", &limit, "--value", "10"]);
    assert_eq!(shell.answer(&with(&["track", "api_calls"]))["status"], "allowed", "it holds on the next one");
    assert_eq!(shell.answer(&with(&["metrics", "record", "api_calls", "4"]))["new_value"], 7);
    assert_eq!(shell.answer(&with(&["metrics", "set", "api_calls", "5"]))["new_value"], 5);
    let metric = shell.answer(&with(&["metrics", "get", "api_calls"]));
    assert_eq!((&metric["current_value"], &metric["limit_value"]), (&5.into(), &10.into()));
    shell.refused(&["track", "nothing"], "metric_not_found");
    shell.refused(&with(&["metrics", "record", "api_calls", "-6"]), "usage_below_zero");

    let keys = shell.answer(&with(&["keys", "list"]));
    let id = keys["keys"][0]["id"].as_str().unwrap().to_owned();
    let _revoked = shell.answer(&[&["keys", "revoke", &id][..], &of].concat());
    assert_eq!(shell.answer(&with(&["keys", "list"]))["count"], 0);
    shell.key = None;
    let _deleted = shell.answer(&["businesses", "delete", &business]);
    shell.refused(&["businesses", "get", &business], "business_not_found");
    let _restored = shell.answer(&["businesses", "restore", &business]);
    assert_eq!(shell.run(&["verify", &node.store_url()]).code, 0);
    assert_eq!(shell.run(&["limits", "create"]).code, 2, "wrong use");
}

//! Every request printed in docs/GUIDE.md, sent literally: only host, keys, `{limit_id}` and the target are replaced.
//! The answers carry the guide's fields, with the guide's types.

#![cfg(test)]

use serde_json::Value;
use std::path::Path;
use tracktags_tests::http::{Client, Response};
use tracktags_tests::upstream::Upstream;
use tracktags_tests::{TestApp, text};

/// A request as the guide prints it.
struct Printed {
    method: String,
    path: String,
    headers: Vec<(String, String)>,
    body: String,
}

fn guide() -> String {
    let file = Path::new(env!("CARGO_MANIFEST_DIR")).join("../docs/GUIDE.md");
    std::fs::read_to_string(file).unwrap()
}

fn blocks(language: &str) -> Vec<String> {
    let fence = format!("```{language}\n");
    guide().split(&fence).skip(1).map(|rest| rest.split("```").next().unwrap().to_owned()).collect()
}

/// Reads a printed `curl` command as a shell would.
fn printed(block: &str) -> Printed {
    let words = words(block);
    let after = |flag: &str| {
        let pairs = words.iter().zip(words.iter().skip(1));
        pairs.filter(|(word, _)| *word == flag).map(|(_, value)| value.clone()).collect::<Vec<_>>()
    };
    let url = words.iter().find(|word| word.starts_with("https://your-tracktags.com")).unwrap();
    let headers = after("-H")
        .iter()
        .map(|header| header.split_once(": ").unwrap())
        .map(|(name, value)| (name.to_owned(), value.to_owned()))
        .collect();
    Printed {
        method: after("-X").pop().unwrap_or_else(|| "GET".to_owned()),
        path: url.trim_start_matches("https://your-tracktags.com").to_owned(),
        headers,
        body: after("-d").pop().unwrap_or_default(),
    }
}

fn words(block: &str) -> Vec<String> {
    let lines: Vec<&str> = block.lines().filter(|line| !line.trim_start().starts_with('#')).collect();
    let text = lines.join("\n").replace("\\\n", " ");
    let (mut words, mut word, mut quote) = (Vec::new(), String::new(), None);
    for c in text.chars() {
        match (quote, c) {
            (Some(open), c) if c == open => quote = None,
            (None, '"' | '\'') => quote = Some(c),
            (None, c) if c.is_whitespace() => {
                if !word.is_empty() {
                    words.push(std::mem::take(&mut word));
                }
            }
            (_, c) => word.push(c),
        }
    }
    words.push(word);
    words.retain(|word| !word.is_empty());
    words
}

impl Printed {
    fn send(&self, client: &mut Client, replace: &[(&str, &str)]) -> Response {
        let put =
            |text: &str| replace.iter().fold(text.to_owned(), |text, (from, to)| text.replace(from, to));
        let headers: Vec<(String, String)> =
            self.headers.iter().map(|(name, value)| (name.clone(), put(value))).collect();
        let headers: Vec<(&str, &str)> =
            headers.iter().map(|(name, value)| (name.as_str(), value.as_str())).collect();
        client.send(&self.method, &put(&self.path), &headers, put(&self.body).as_bytes())
    }
}

/// Every field of `printed` is in `found`, with the same type.
fn same_fields(printed: &Value, found: &Value, at: &str) {
    match (printed, found) {
        (Value::Object(printed), Value::Object(found)) => {
            for (name, value) in printed {
                assert!(found.contains_key(name), "{at}.{name} is missing");
                same_fields(value, &found[name], &format!("{at}.{name}"));
            }
        }
        (Value::String(_), Value::String(_))
        | (Value::Number(_), Value::Number(_))
        | (Value::Bool(_), Value::Bool(_)) => {}
        _ => panic!("{at}: {printed} is printed, {found} was answered"),
    }
}

#[test]
fn the_guides_requests_get_the_guides_answers() {
    let app = TestApp::new();
    let target = Upstream::start();
    let requests: Vec<Printed> =
        blocks("bash").iter().filter(|block| block.contains("curl")).map(|block| printed(block)).collect();
    let answers: Vec<Value> =
        blocks("json").iter().map(|block| serde_json::from_str(block).unwrap()).collect();
    let [create, update, key, call, usage] = &requests[..] else { panic!("{} requests", requests.len()) };
    let [key_answer, allowed, denied] = &answers[..] else { panic!("{} answers", answers.len()) };
    let business = ("tk_live_your_business_key", app.business_key.as_str());
    let mut client = app.client();

    let made = create.send(&mut client, &[business]);
    assert_eq!(made.status, 201, "{}", made.text());
    let sent: Value = serde_json::from_str(&create.body).unwrap();
    same_fields(&sent, &made.json(), "plan_limit");
    let limit_id = text(&made.json(), "id");

    let created = key.send(&mut client, &[business]);
    assert_eq!(created.status, 201, "{}", created.text());
    same_fields(key_answer, &created.json(), "key");
    assert_eq!(created.json()["warning"], key_answer["warning"]);
    let customer_key = text(&created.json(), "api_key");

    let target_url = target.url("/echo");
    let replace = [
        ("ck_live_customer_123_45678901", customer_key.as_str()),
        ("https://your-api.com/endpoint", &target_url),
    ];
    assert!(call.body.contains("\"warning\""), "the stray field is sent");
    let answer = call.send(&mut client, &replace);
    assert_eq!(answer.status, 200, "{}", answer.text());
    same_fields(allowed, &answer.json(), "allowed");
    assert_eq!(answer.json()["forwarded_response"]["body"], "{\"data\": \"customer request\"}");
    assert_eq!(answer.json()["breach_status"]["current_usage"], 1);

    app.node.sql(&format!("UPDATE plan_limits SET limit_value = 1 WHERE id = '{limit_id}'"));
    let answer = call.send(&mut client, &replace);
    assert_eq!(answer.status, 429, "{}", answer.text());
    same_fields(denied, &answer.json(), "denied");
    assert_eq!(answer.json()["error"], denied["error"]);
    assert_eq!(target.count(), 1, "a denied call is not forwarded");

    let updated = update.send(&mut client, &[business, ("{limit_id}", &limit_id)]);
    assert_eq!(updated.status, 200, "{}", updated.text());
    let sent: Value = serde_json::from_str(&update.body).unwrap();
    for (name, value) in sent.as_object().unwrap() {
        assert_eq!(&updated.json()[name], value);
    }
    assert_eq!(call.send(&mut client, &replace).status, 200, "it holds on the next request");

    let shown = usage.send(&mut client, &[business]);
    assert_eq!(shown.json()["metrics"][0]["current_value"], 2, "{}", shown.text());
}

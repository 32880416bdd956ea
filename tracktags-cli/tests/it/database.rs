//! `verify`, `ledger`, `migrate` and `doctor` on a database.

use crate::support::run;
use std::path::Path;
use std::process::Command;
use std::sync::Arc;
use tracktags_core::audit::Author;
use tracktags_core::traits::{Clock, NewBusiness};
use tracktags_core::{Account, Demand, Limit, Period, Terms, Timestamp, Units};
use tracktags_store::{Admitted, Durability, MasterKey, Node, OpenOptions, StoreLimits};

/// A clock that stands still.
struct Noon;

impl Clock for Noon {
    fn now(&self) -> Timestamp {
        "2026-01-15T12:00:00Z".parse().unwrap()
    }
}

fn open(url: &str) -> Node {
    tracktags_store::open(OpenOptions {
        url: url.to_owned(),
        durability: Durability::Process,
        master_keys: MasterKey::parse_list(&"11".repeat(32)).unwrap(),
        clock: Arc::new(Noon),
        limits: StoreLimits::default(),
    })
    .unwrap()
}

/// A database with a few takes of two customers, one of them given back. Its URL and its business.
async fn written(folder: &Path) -> (String, String) {
    let url = format!("sqlite:{}", folder.join("tracktags.db").display());
    let node = open(&url);
    let new = NewBusiness { business_name: "Acme".into(), email: "ops@acme.example".into(), user_id: None };
    let business = node.store.create_business(Author::server(), new).await.unwrap().business_id;
    for (customer, units) in [("customer_1", 3), ("customer_2", 5), ("customer_1", 4)] {
        let account = Account::customer(business.clone(), customer.parse().unwrap());
        let limit = Limit::new("api_calls".parse().unwrap(), Units::new(100).unwrap(), Period::Monthly);
        let mut terms = Terms::new(account, [limit]);
        // Newer than anything the store knows of.
        terms.version = i64::MAX;
        let demand = Demand::new(Arc::new(terms), 0, Units::new(units).unwrap());
        let Admitted::Admitted(_, Some(reservation)) = node.admission.reserve(demand).await.unwrap() else {
            panic!("not admitted");
        };
        if units == 4 {
            node.admission.settle(reservation, Units::ZERO).await.unwrap();
        } else {
            node.admission.keep(reservation);
        }
    }
    node.close();
    (url, business.to_string())
}

/// Runs `look` on such a database.
fn on_a_database(look: impl FnOnce(&str, &str)) {
    let folder = tempfile::tempdir().unwrap();
    let (url, business) = actix_web::rt::System::new().block_on(written(folder.path()));
    look(&url, &business);
}

#[test]
fn a_schema_is_brought_up_to_date_once() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("tracktags.db");
    let url = format!("sqlite:{}", path.display());
    let ran = run(&["migrate", &url]);
    assert_eq!(ran.code, 1, "a database that is not there is not made: {}", ran.out);
    assert!(!path.exists());
    let _empty = std::fs::File::create(&path).unwrap();
    let ran = run(&["migrate", &url]);
    assert_eq!((ran.code, ran.err.as_str()), (0, ""));
    assert!(ran.out.contains("configuration") && ran.out.contains("audit"), "{}", ran.out);
    let again = run(&["--output", "json", "migrate", &url]);
    assert_eq!((again.code, again.out.trim()), (0, r#"{"steps":[]}"#));
    let node = open(&url);
    assert_eq!(run(&["migrate", &url]).code, 1, "a server has it open");
    node.close();
}

#[test]
fn the_ledger_is_printed_entry_by_entry() {
    on_a_database(|url, business| {
        let ran = run(&["ledger", url]);
        assert_eq!((ran.code, ran.err.as_str()), (0, ""));
        insta::assert_snapshot!("ledger", ran.out.replace(business, "biz_1"));
        let ran = run(&["--output", "json", "ledger", url, "--customer", "customer_2"]);
        insta::assert_snapshot!("ledger_json", ran.out.replace(business, "biz_1"));
        for filter in [["--metric", "seats"], ["--business", "biz_0"], ["--customer", "customer_3"]] {
            let ran = run(&["ledger", url, filter[0], filter[1]]);
            assert_eq!(ran.out.lines().count(), 1, "{filter:?}: only the head\n{}", ran.out);
        }
    });
}

#[test]
fn books_that_agree_are_said_to_and_others_fail() {
    on_a_database(|url, _| {
        let ran = run(&["verify", url]);
        assert_eq!((ran.code, ran.err.as_str()), (0, ""));
        insta::assert_snapshot!("verify", ran.out);
        let damage = "UPDATE usage_history SET units = units - 1 WHERE customer_id = 'customer_2'";
        let path = url.strip_prefix("sqlite:").unwrap();
        assert!(Command::new("sqlite3").args([path, damage]).status().unwrap().success());
        let ran = run(&["verify", url]);
        assert_eq!(ran.code, 1);
        assert!(ran.out.contains("\ndifference: "), "{}", ran.out);
        assert_eq!(ran.err, "error[books_differ]: the books do not agree; differences: 1\n");
        let ran = run(&["verify", url, "--output", "json"]);
        let report: serde_json::Value = serde_json::from_str(&ran.out).unwrap();
        assert_eq!(report["differences"].as_array().unwrap().len(), 1);
    });
}

#[test]
fn a_database_that_is_not_there_is_not_made() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("none.db");
    let ran = run(&["verify", &format!("sqlite:{}", path.display())]);
    assert_eq!((ran.code, ran.out.as_str()), (1, ""));
    assert!(ran.err.starts_with("error[store]: cannot open "), "{}", ran.err);
    let ran = run(&["ledger", &format!("sqlite:{}", path.display())]);
    assert_eq!((ran.code, ran.out.as_str()), (1, ""));
    assert!(!path.exists());
}

/// A program that answers as `tracktags-server --check` does.
fn checker(folder: &Path, script: &str) -> String {
    use std::os::unix::fs::PermissionsExt;
    let program = folder.join("checker");
    std::fs::write(&program, format!("#!/bin/sh\n{script}\n")).unwrap();
    std::fs::set_permissions(&program, std::fs::Permissions::from_mode(0o700)).unwrap();
    program.to_str().unwrap().to_owned()
}

#[test]
fn the_doctor_tells_warnings_from_problems() {
    use std::os::unix::fs::PermissionsExt;
    on_a_database(|url, business| {
        let folder = Path::new(url.strip_prefix("sqlite:").unwrap()).parent().unwrap();
        let well = checker(folder, "true");
        let ran = run(&["doctor", url, "--server", &well, "--output", "json"]);
        assert_eq!((ran.code, ran.out.trim(), ran.err.as_str()), (0, r#"{"findings":[]}"#, ""));
        // What may be meant.
        let path = url.strip_prefix("sqlite:").unwrap();
        let observe = "UPDATE businesses SET enforcement = 'observe'";
        assert!(Command::new("sqlite3").args([path, observe]).status().unwrap().success());
        let warns = checker(
            folder,
            r#"[ "$1 $2 $3" = "--check --config x.toml" ] && printf 'warning\tproxy.target_policy\topen\n'"#,
        );
        let ran = run(&["doctor", url, "--server", &warns, "--config", "x.toml"]);
        assert_eq!((ran.code, ran.err.as_str()), (0, ""));
        insta::assert_snapshot!("doctor_warns", ran.out.replace(business, "biz_1"));
        // What is wrong.
        std::fs::set_permissions(path, std::fs::Permissions::from_mode(0o644)).unwrap();
        let fails = checker(folder, "echo 'tracktags-server: server.bind: here is no address' >&2; exit 64");
        let ran = run(&["doctor", url, "--server", &fails]);
        assert_eq!((ran.code, ran.err.as_str()), (1, "error[problems]: problems to be put right: 2\n"));
        assert!(ran.out.contains("server.bind: here is no address"), "{}", ran.out);
        assert!(ran.out.contains("give it mode 0600"), "{}", ran.out);
        let ran = run(&["doctor", url, "--server", "/nowhere/tracktags-server"]);
        assert!(ran.out.contains("settings were not checked"), "{}", ran.out);
        assert_eq!(run(&["doctor", "tracktags.db", "--server", &well]).code, 64);
    });
}

#[test]
fn the_doctor_names_an_old_schema_a_newer_one_and_damage() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("tracktags.db");
    let url = format!("sqlite:{}", path.display());
    let well = checker(folder.path(), "true");
    let _empty = std::fs::File::create(&path).unwrap();
    assert_eq!(run(&["migrate", &url]).code, 0);
    let sql = |sql: &str| assert!(Command::new("sqlite3").arg(&path).arg(sql).status().unwrap().success());
    let doctor = || run(&["doctor", &url, "--server", &well]);
    sql(
        "DELETE FROM __diesel_schema_migrations WHERE version = (SELECT max(version) FROM __diesel_schema_migrations)",
    );
    assert!(doctor().out.contains("older than this program"), "{}", doctor().out);
    sql("INSERT INTO __diesel_schema_migrations (version) VALUES ('99990000000000')");
    assert!(doctor().out.contains("use a newer program"), "{}", doctor().out);
    let mut bytes = std::fs::read(&path).unwrap();
    let middle = bytes.len() / 2;
    bytes[middle..middle + 2_000].fill(0xff);
    std::fs::write(&path, bytes).unwrap();
    let ran = doctor();
    assert_eq!(ran.code, 1, "{} {}", ran.out, ran.err);
}

//! The help texts, as people read them.

use crate::support::run;

/// What a command line prints when all goes well.
fn printed(words: &[&str]) -> String {
    let ran = run(words);
    assert_eq!((ran.code, ran.err.as_str()), (0, ""), "{words:?}");
    ran.out
}

/// Every command that has sub-commands, and some that have none.
const COMMANDS: &[&str] = &["businesses", "customers", "keys", "plans", "limits", "settings"];

#[test]
fn the_help_names_every_command_and_exit_code() {
    insta::assert_snapshot!(printed(&["--help"]));
}

#[test]
fn each_noun_has_its_verbs() {
    let texts: Vec<_> = COMMANDS.iter().map(|noun| verbs(&printed(&[noun, "--help"]))).collect();
    insta::assert_snapshot!(texts.join("\n"));
}

/// A help text up to its options, which are the same everywhere.
fn verbs(help: &str) -> String {
    help.split("Options:").next().unwrap().to_owned()
}

macro_rules! helps {
    ($($test:ident: $($word:literal)+;)+) => {
        $(#[test]
        fn $test() {
            insta::assert_snapshot!(printed(&[$($word,)+ "-h"]));
        })+
    };
}

helps! {
    help_of_customers_create: "customers" "create";
    help_of_keys_create: "keys" "create";
    help_of_keys_check: "keys" "check";
    help_of_keys_rotate: "keys" "rotate";
    help_of_plans_delete: "plans" "delete";
    help_of_limits_create: "limits" "create";
    help_of_limits_list: "limits" "list";
    help_of_settings_set: "settings" "set";
    help_of_usage: "usage";
    help_of_history: "history";
    help_of_metrics_record: "metrics" "record";
    help_of_verify: "verify";
    help_of_doctor: "doctor";
    help_of_ledger: "ledger";
}

#[test]
fn the_version_is_printed_as_an_answer() {
    assert_eq!(printed(&["--version"]), format!("tracktags-cli {}\n", env!("CARGO_PKG_VERSION")));
}

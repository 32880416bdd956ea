//! Several servers: what a profile says is taken whole, and its keys go nowhere else.

use crate::support::{Canned, program, run};
use std::os::unix::fs::PermissionsExt;
use std::path::Path;

/// A home with these profiles, in a file of this mode.
fn home(profiles: &str, mode: u32) -> tempfile::TempDir {
    let home = tempfile::tempdir().unwrap();
    let folder = home.path().join(".config/tracktags");
    std::fs::create_dir_all(&folder).unwrap();
    std::fs::write(folder.join("profiles.toml"), profiles).unwrap();
    std::fs::set_permissions(folder.join("profiles.toml"), std::fs::Permissions::from_mode(mode)).unwrap();
    home
}

/// Runs the program in a home: exit code, output, errors.
fn at(home: &Path, words: &[&str], environment: &[(&str, &str)]) -> (i32, String, String) {
    let mut all = vec![("HOME", home.to_str().unwrap())];
    all.extend(environment);
    let ended = program(words, &all);
    let text = |bytes| String::from_utf8(bytes).unwrap();
    (ended.status.code().unwrap(), text(ended.stdout), text(ended.stderr))
}

#[test]
fn a_profile_stands_for_the_environment_as_a_whole() {
    let environment = [("TRACKTAGS_URL", "http://127.0.0.1:1"), ("TRACKTAGS_KEY", "tk_live_environment")];
    let server = Canned::new(200, r#"{"plan_limits":[],"count":0,"next_cursor":null}"#);
    let profiles = format!(
        "[one]\nurl = \"{}\"\nadmin_key = \"ak_profile\"\nbusiness = \"biz_1\"\n[two]\nurl = \"http://x\"\n",
        server.url
    );
    let home = home(&profiles, 0o600);
    let (code, _, err) = at(home.path(), &["--profile", "one", "limits", "list"], &environment);
    assert_eq!((code, err.as_str()), (0, ""));
    let asked = server.asked();
    assert_eq!(asked, "GET /api/v1/plan_limits?business_id=biz_1\nx-admin-key: ak_profile");
    // A profile without a key has none, whatever the environment holds.
    let (code, _, err) =
        at(home.path(), &["limits", "list"], &[environment[1], ("TRACKTAGS_PROFILE", "two")]);
    assert!(code == 64 && err.contains("no key"), "{err}");
    let (code, out, _) = at(home.path(), &["profiles"], &[]);
    assert_eq!(code, 0);
    insta::assert_snapshot!(
        "profiles",
        out.replace(profiles.split('"').nth(1).unwrap(), "http://127.0.0.1:8080")
    );
    assert!(!out.contains("ak_profile"));
}

#[test]
fn a_file_of_profiles_that_cannot_be_relied_on_is_refused() {
    let good = "[one]\nurl = \"http://127.0.0.1:1\"\nkey = \"tk_live_secret\"\n";
    for (profiles, mode, said) in [
        (good, 0o644, "give it mode 0600"),
        ("[two]\nurl = \"http://x\"\n", 0o600, "has no profile one; it has two"),
        ("[one]\nkey = \"tk_live_secret\"\n", 0o600, "url"),
        ("[one]\nurl = \"http://x\"\ntoken = \"tk_live_secret\"\n", 0o600, "token"),
        ("[one\nkey = \"tk_live_secret\"\n", 0o600, "is not as it must be"),
        ("[one]\nurl = \"http://x\"\nkey = \"k\"\nbusiness = \"a b\"\n", 0o600, "business"),
    ] {
        let home = home(profiles, mode);
        let (code, out, err) = at(home.path(), &["--profile", "one", "usage"], &[]);
        assert_eq!((code, out.as_str()), (64, ""), "{profiles} {err}");
        assert!(err.contains(said) && !err.contains("secret"), "{err}");
    }
    let (code, _, err) = at(Path::new("/nowhere"), &["--profile", "one", "usage"], &[]);
    assert!(code == 64 && err.contains("cannot be read"), "{err}");
}

#[test]
fn a_flag_beside_a_profile_is_bad_usage() {
    for flag in [["--url", "http://x"], ["--key", "k"], ["--admin-key", "k"]] {
        let ran = run(&["--profile", "one", flag[0], flag[1], "usage"]);
        assert_eq!((ran.code, ran.out.as_str()), (2, ""), "{flag:?}");
        assert!(ran.err.contains(flag[0]), "{}", ran.err);
    }
}

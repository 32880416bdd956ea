//! No snapshot outlives its test.

use std::path::Path;

#[test]
fn every_snapshot_belongs_to_a_test() {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/it");
    for entry in std::fs::read_dir(folder.join("snapshots")).unwrap() {
        let file = entry.unwrap().file_name().into_string().unwrap();
        let name = file.strip_suffix(".snap").unwrap_or_else(|| panic!("{file} waits for a decision"));
        let (module, name) = name.strip_prefix("it__").and_then(|name| name.split_once("__")).unwrap();
        let source = std::fs::read_to_string(folder.join(format!("{module}.rs"))).unwrap();
        let mut words = source.split(|char: char| !char.is_alphanumeric() && char != '_');
        assert!(words.any(|word| word == name), "{module}.rs makes no {file}");
    }
}

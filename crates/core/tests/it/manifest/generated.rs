//! The schema and the reference page are what the table of fields gives. After a change to the table, run the tests once
//! with `RETOMA_WRITE_DOCS=1`, look at the difference and commit it.

#![allow(clippy::disallowed_methods)] // A test may read the documents that it compares with.

use retoma_core::manifest::{json_schema, reference_markdown, with_reference};
use std::path::PathBuf;

fn docs(name: &str) -> PathBuf {
    PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("../../docs").join(name)
}

/// Compares the committed file with `expected`, made from its text.
fn compare(name: &str, expected: impl Fn(&str) -> String) {
    let found = std::fs::read_to_string(docs(name)).unwrap_or_default();
    let expected = expected(&found);
    if std::env::var_os("RETOMA_WRITE_DOCS").is_some() {
        std::fs::write(docs(name), &expected).unwrap();
    } else {
        assert!(found == expected, "docs/{name} is not what the table of fields gives");
    }
}

#[test]
fn the_committed_schema_is_current() {
    compare("manifest.schema.json", |_| json_schema());
}

#[test]
fn the_committed_reference_is_current() {
    compare("manifest.md", |page| with_reference(page).expect("docs/manifest.md has both markers"));
}

#[test]
fn a_page_without_markers_is_noticed() {
    assert_eq!(with_reference("# Manifest\n"), None);
}

#[test]
fn the_schema_is_json_and_names_every_key_of_the_reference() {
    let schema: serde_json::Value = serde_json::from_str(&json_schema()).unwrap();
    assert_eq!(schema["additionalProperties"], false);
    assert_eq!(schema["properties"]["component"]["items"]["properties"]["kind"]["enum"][1], "sqlite");
    for line in reference_markdown().lines() {
        // Rows of keys start with a name in backticks; headings of tables and tiers do not name keys.
        let Some(key) = line.strip_prefix("| `").and_then(|rest| rest.split('`').next()) else { continue };
        assert!(json_schema().contains(&format!("\"{key}\": {{")), "{key}");
    }
}

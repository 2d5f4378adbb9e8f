//! Names of folders for names of databases, which may be anything: each its own, each a plain name.

use super::*;
use proptest::prelude::*;
use std::collections::{BTreeSet, HashSet};

proptest! {
    #[test]
    fn each_database_has_a_folder_of_its_own_that_leads_nowhere_else(
        names in prop::collection::btree_set("([a-c_.0-3-]|[^\0]){1,70}", 1..20),
    ) {
        let names: BTreeSet<String> = names;
        let folders: Vec<String> = names.iter().enumerate().map(|(at, name)| folder_name(at, name)).collect();
        let different: HashSet<&String> = folders.iter().collect();
        prop_assert_eq!(different.len(), names.len(), "{:?}", folders);
        for (name, folder) in names.iter().zip(&folders) {
            prop_assert!(folder.bytes().all(|byte| byte.is_ascii_alphanumeric() || b"_-.".contains(&byte)), "{}", folder);
            prop_assert!(!folder.starts_with('.') && folder.len() <= 255, "{}", folder);
            prop_assert!(folder == name || folder.contains('.'), "{} for {}", folder, name);
        }
        // What a backup wrote, a recovery takes.
        let held: Vec<(&str, Option<(u64, bool)>)> = names.iter().map(|name| (name.as_str(), Some((1, true)))).collect();
        let mut written = facts(&held);
        for (database, folder) in written.databases.iter_mut().zip(&folders) {
            database.folder = Some(folder.clone());
        }
        prop_assert_eq!(DumpFacts::from_json(&written.to_json().unwrap()).unwrap(), written);
    }
}

#[test]
fn facts_that_lead_a_recovery_elsewhere_are_refused() {
    for folder in ["/etc", "a/../b", "..", ".", ".hidden", "", "a\0b", "a/"] {
        let mut bad = facts(&[("one", Some((1, true))), ("two", Some((1, true)))]);
        bad.databases[1].folder = Some(folder.to_owned());
        let error = DumpFacts::from_json(&bad.to_json().unwrap()).unwrap_err();
        assert_eq!(
            (error.kind(), error.code()),
            (ErrorKind::Corrupt, codes::CAPTURE_FACTS_MALFORMED),
            "{folder:?}"
        );
    }
}

#[test]
fn a_database_that_refuses_us_now_is_not_taken_for_one_that_was_lost() {
    let before = facts(&[("shop", Some((3, true)))]);
    let mut now = facts(&[("shop", None)]);
    assert!(now.compare(Some(&before)).is_err());
    now.databases[0].is_refused = true;
    now.compare(Some(&before)).unwrap();
    // What had tables and no rows may stay without rows, but not lose its tables.
    let empty = facts(&[("shop", Some((3, false)))]);
    facts(&[("shop", Some((2, false)))]).compare(Some(&empty)).unwrap();
    assert!(facts(&[("shop", Some((0, false)))]).compare(Some(&empty)).is_err());
}

#[test]
fn as_a_server_the_dumps_have_the_databases_and_the_role_that_they_were_made_with() {
    let dumped = facts(&[("shop", Some((3, true))), ("template0", None)]);
    let server = dumped.as_server("/var/lib/pg");
    assert_eq!((server.server.version_num, &*server.server.superuser), (150_018, "postgres"));
    assert_eq!(server.server.data_directory, "/var/lib/pg");
    let names: Vec<&str> = server.databases.iter().map(|database| database.name.as_str()).collect();
    assert_eq!(names, ["shop", "template0"]);
}

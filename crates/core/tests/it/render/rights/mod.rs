//! Rendered rights, asked as a store would ask them: for each role, what it may do where. A small evaluator of each store's
//! language stands for the store.

mod azure;

use retoma_core::manifest::{Manifest, Origin, parse};
use retoma_core::render::policies;
use serde_json::Value;
use std::collections::BTreeMap;

/// Repositories `a` below `x/`, `c` below `xy/` (which begins with the same letter), both in one bucket; `w` has one of its own.
fn files(scheme: &str, more_of_a: &str) -> BTreeMap<String, String> {
    let mut text = "version = 1\n[service]\nname = \"s\"\n".to_owned();
    for (name, place, more) in [("a", "both/x", more_of_a), ("c", "both/xy", ""), ("w", "whole", "")] {
        text += &format!(
            "[[repository]]\nname = \"{name}\"\nurl = \"{scheme}://{place}\"\npassword = \"env:P\"\n{more}"
        );
    }
    text += "[[component]]\nname = \"m\"\nkind = \"files\"\ntier = \"high\"\npath = \"/m\"\n";
    let origin = Origin { file_name: "retoma.toml".to_owned(), dir: "/".into() };
    let manifest: Manifest = parse(&text, &origin).unwrap();
    let files = policies::files(manifest.repositories.iter());
    let files: BTreeMap<_, _> = files.into_iter().map(|file| (file.name, file.text)).collect();
    assert!(files.len() >= 4, "two buckets have files of their own: {:?}", files.keys());
    files
}

fn json(files: &BTreeMap<String, String>, name: &str) -> Value {
    serde_json::from_str(&files[name]).unwrap()
}

/// What somebody wants to do with an object, or with all below a prefix.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Wish {
    Read,
    Add,
    Replace,
    Delete,
    List,
}

const WISHES: [Wish; 5] = [Wish::Read, Wish::Add, Wish::Replace, Wish::Delete, Wish::List];

/// Objects of every folder of a repository, those of the other one, and one beside both.
const PLACES: [&str; 8] =
    ["x/data/1", "x/locks/1", "x/snapshots/1", "xy/data/1", "xy/locks/1", "locks/1", "other", "x"];

/// What each role of the repository below `prefix` may do, told here from docs/immutability.md. S3 alone cannot tell adding from
/// replacing: there, versions keep what was replaced.
fn may(role: &str, wish: Wish, place: &str, prefix: &str, tells_adding: bool) -> bool {
    let Some(below) = place.strip_prefix(prefix) else { return false };
    match wish {
        Wish::Read | Wish::List => true,
        Wish::Add => role != "reader",
        Wish::Replace => role != "reader" && !tells_adding,
        // Whoever may delete may put something else there.
        Wish::Delete => role == "pruner" || (role == "writer" && below.starts_with("locks/")),
    }
}

fn for_each_wish(tells_adding: bool, is_allowed: impl Fn(&str, &str, Wish, &str) -> bool) {
    for (name, prefix) in [("a", "x/"), ("c", "xy/"), ("w", "")] {
        for role in ["writer", "reader", "pruner"] {
            for (wish, place) in WISHES.iter().flat_map(|wish| PLACES.map(|place| (*wish, place))) {
                if wish == Wish::Replace && tells_adding {
                    continue; // Asked by itself where the store tells them apart.
                }
                let expected = may(role, wish, place, prefix, tells_adding);
                assert_eq!(
                    is_allowed(name, role, wish, place),
                    expected,
                    "{role} of {name}: {wish:?} {place}"
                );
            }
        }
    }
}

/// As S3 decides: a denial outweighs everything.
fn s3_allows(policy: &Value, user: &str, action: &str, resource: &str, listed: Option<&str>) -> bool {
    let has = |list: &Value, wanted: &dyn Fn(&str) -> bool| {
        list.as_array().unwrap().iter().any(|it| wanted(it.as_str().unwrap()))
    };
    let fits = |pattern: &str, text: &str| match pattern.strip_suffix('*') {
        Some(beginning) => text.starts_with(beginning),
        None => text == pattern,
    };
    let applies = |statement: &&Value| {
        let condition = &statement["Condition"]["StringLike"]["s3:prefix"];
        has(&statement["Principal"]["AWS"], &|arn| arn.ends_with(&format!(":user/{user}")))
            && has(&statement["Action"], &|it| it == action)
            && has(&statement["Resource"], &|it| fits(it, resource))
            && (condition.is_null() || listed.is_some_and(|listed| has(condition, &|it| fits(it, listed))))
    };
    let effects: Vec<&Value> =
        policy["Statement"].as_array().unwrap().iter().filter(applies).map(|it| &it["Effect"]).collect();
    !effects.is_empty() && effects.iter().all(|effect| *effect == "Allow")
}

fn bucket_of(name: &str) -> &'static str {
    if name == "w" { "whole" } else { "both" }
}

#[test]
fn in_s3_each_role_may_do_what_it_needs_below_its_prefix_and_nothing_else() {
    for more in ["", "lock_days = 14\n"] {
        let files = files("s3", more);
        for_each_wish(false, |name, role, wish, place| {
            let bucket = bucket_of(name);
            let policy = json(&files, &format!("s3-{bucket}-policy.json"));
            let user = format!("retoma-{name}-{role}");
            let object = format!("arn:aws:s3:::{bucket}/{place}");
            let on_object = |action| s3_allows(&policy, &user, action, &object, None);
            match wish {
                Wish::Read => on_object("s3:GetObject"),
                Wish::Add | Wish::Replace => on_object("s3:PutObject"),
                Wish::Delete => on_object("s3:DeleteObject"),
                Wish::List => {
                    let bucket = format!("arn:aws:s3:::{bucket}");
                    s3_allows(&policy, &user, "s3:ListBucket", &bucket, Some(place))
                }
            }
        });
    }
}

#[test]
fn in_s3_nobody_may_take_a_lock_or_a_version_away() {
    let files = files("s3", "lock_days = 14\n");
    for (name, role) in
        ["a", "c", "w"].into_iter().flat_map(|it| ["writer", "reader", "pruner"].map(|role| (it, role)))
    {
        let bucket = bucket_of(name);
        let policy = json(&files, &format!("s3-{bucket}-policy.json"));
        let user = format!("retoma-{name}-{role}");
        for action in [
            "s3:BypassGovernanceRetention",
            "s3:DeleteObjectVersion",
            "s3:PutObjectLegalHold",
            "s3:PutBucketPolicy",
            "s3:PutBucketVersioning",
            "s3:PutLifecycleConfiguration",
            "s3:PutBucketObjectLockConfiguration",
            "s3:DeleteBucket",
            "s3:DeleteBucketPolicy",
            "s3:ReplicateDelete",
        ] {
            for resource in ["", "/x/data/1", "/x/locks/1", "/other"] {
                let resource = format!("arn:aws:s3:::{bucket}{resource}");
                assert!(!s3_allows(&policy, &user, action, &resource, None), "{user} {action} {resource}");
            }
        }
        let object = format!("arn:aws:s3:::{bucket}/{}data/1", if name == "a" { "x/" } else { "" });
        let on_object = |action| s3_allows(&policy, &user, action, &object, None);
        // Only where the manifest locks, and only who writes, renews a lock.
        assert_eq!(on_object("s3:PutObjectRetention"), name == "a" && role != "reader", "{user}");
        assert_eq!(on_object("s3:GetObjectRetention"), name == "a", "{user}");
        // Who judges the past needs to see old versions, and nobody else.
        let whole = format!("arn:aws:s3:::{bucket}");
        let versions = s3_allows(&policy, &user, "s3:ListBucketVersions", &whole, Some("x/data"));
        assert_eq!(versions, role == "reader" && name != "c", "{user}");
    }
}

#[test]
fn in_s3_old_versions_go_when_the_locks_of_their_own_repository_have_ended() {
    let files = files("s3", "lock_days = 14\n");
    let rules = |bucket: &str| {
        let rules = json(&files, &format!("s3-{bucket}-lifecycle.json"))["Rules"].clone();
        let of = |rule: &Value| {
            assert_eq!(rule["Status"], "Enabled");
            let days = rule["NoncurrentVersionExpiration"]["NoncurrentDays"].as_u64().unwrap();
            // What is current never goes by itself.
            assert!(rule["Expiration"]["Days"].is_null(), "{rule}");
            (rule["Filter"]["Prefix"].as_str().unwrap().to_owned(), days)
        };
        rules.as_array().unwrap().iter().map(of).collect::<Vec<_>>()
    };
    assert_eq!(rules("both"), [("x/".to_owned(), 14), ("xy/".to_owned(), 30)]);
    assert_eq!(rules("whole"), [(String::new(), 30)]);
}

/// The bindings that the commands make: account, role, and the file of its condition (empty for all of the bucket).
fn google_bindings(readme: &str) -> Vec<(String, String, String)> {
    let word = |line: &str, name: &str| {
        let rest = line.split(name).nth(1).unwrap_or_else(|| panic!("no {name} in {line}"));
        rest.split_whitespace().next().unwrap().to_owned()
    };
    let lines = readme.lines().filter(|line| line.contains("add-iam-policy-binding"));
    let binding = |line: &str| {
        let is_bound = !line.ends_with(" --condition=None");
        let condition = if is_bound { word(line, "--condition-from-file=") } else { String::new() };
        (word(line, "serviceAccount:"), word(line, "--role="), condition)
    };
    lines.map(binding).collect()
}

/// Both forms of a clause that we write, joined by `||`: an object's name, and the prefix that a listing asks for.
fn google_holds(expression: &str, bucket: &str, object: Option<&str>, listed: Option<&str>) -> bool {
    expression.split(" || ").any(|clause| {
        let beginning = clause.rsplit_once(".startsWith('").unwrap().1.strip_suffix("')").unwrap();
        if clause.starts_with("resource.name") {
            let name = object.map(|object| format!("projects/_/buckets/{bucket}/objects/{object}"));
            return name.is_some_and(|name| name.starts_with(beginning));
        }
        assert!(clause.contains("objectListPrefix', ''"), "{clause}");
        listed.is_some_and(|listed| listed.starts_with(beginning))
    })
}

#[test]
fn in_google_cloud_storage_each_role_may_do_what_it_needs_and_a_writer_replaces_nothing() {
    for more in ["", "lock_days = 14\n"] {
        google_rights(&files("gs", more));
    }
}

fn google_rights(files: &BTreeMap<String, String>) {
    let is_allowed = |name: &str, role: &str, wish: Wish, place: &str| {
        let bucket = bucket_of(name);
        let account = format!("retoma-{name}-{role}@");
        let all = google_bindings(&files[&format!("gs-{bucket}-README.txt")]);
        let own: Vec<_> = all.iter().filter(|(who, ..)| who.starts_with(&account)).collect();
        assert!(!own.is_empty(), "{account}");
        own.into_iter().any(|(_, right, file)| {
            let rights: &[Wish] = match right.as_str() {
                "roles/storage.objectCreator" => &[Wish::Add],
                "roles/storage.objectViewer" => &[Wish::Read, Wish::List],
                "roles/storage.objectUser" => &WISHES,
                // Of locks and the bucket's settings, see below.
                "projects/PROJECT/roles/retomaLock" | "projects/PROJECT/roles/retomaLook" => return false,
                other => panic!("{other}"),
            };
            let expression = json(files, file)["expression"].as_str().unwrap().to_owned();
            let (object, listed) = if wish == Wish::List { (None, Some(place)) } else { (Some(place), None) };
            rights.contains(&wish) && google_holds(&expression, bucket, object, listed)
        })
    };
    for_each_wish(true, is_allowed);
    for (role, place, expected) in [
        ("writer", "x/data/1", false),
        ("writer", "x/snapshots/1", false),
        ("writer", "x/locks/1", true),
        ("reader", "x/locks/1", false),
        ("pruner", "x/data/1", true),
        ("pruner", "xy/data/1", false),
    ] {
        assert_eq!(is_allowed("a", role, Wish::Replace, place), expected, "{role} replaces {place}");
    }
}

#[test]
fn in_google_cloud_storage_who_writes_locks_and_nobody_takes_a_lock_away() {
    let files = files("gs", "lock_days = 14\n");
    for (bucket, accounts) in [("both", ["a", "c"].as_slice()), ("whole", &["w"])] {
        let readme = &files[&format!("gs-{bucket}-README.txt")];
        let all = google_bindings(readme);
        for (name, role) in
            accounts.iter().flat_map(|it| ["writer", "reader", "pruner"].map(|role| (it, role)))
        {
            let has = |right: &str| {
                let own = all.iter().filter(|(who, ..)| who.starts_with(&format!("retoma-{name}-{role}@")));
                own.filter(|(_, it, _)| it.ends_with(right)).map(|(.., file)| file.clone()).next()
            };
            let locks = has("/retomaLock");
            assert_eq!(locks.is_some(), *name == "a" && role != "reader", "{name} {role}");
            assert!(locks.is_none_or(|file| file == format!("gs-{bucket}-{name}-below.json")));
            assert_eq!(has("/retomaLook"), (*name == "a").then(String::new), "{name} {role}");
        }
        let permissions: Vec<_> = readme.lines().filter(|line| line.contains("--permissions=")).collect();
        assert_eq!(permissions.len(), if bucket == "both" { 2 } else { 0 }, "{readme}");
        for line in permissions {
            assert!(!line.contains("overrideUnlockedRetention") && !line.contains("delete"), "{line}");
        }
    }
    let days = |rule: &Value| rule["condition"]["daysSinceNoncurrentTime"].as_u64();
    let rules = &json(&files, "gs-both-lifecycle.json")["lifecycle"]["rule"];
    assert_eq!(rules.as_array().unwrap().iter().filter_map(days).collect::<Vec<_>>(), [14, 30]);
}

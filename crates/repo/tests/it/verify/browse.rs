//! Finding snapshots and paths, listing, and what changed.

use super::{Fixture, files, noise, text};
use retoma_core::{ErrorKind, error::codes};
use retoma_repo::format::tree::NodeKind;
use retoma_repo::ops::diff::{ChangeKind, diff};
use retoma_repo::ops::find::{self, Selector, Which};
use retoma_repo::ops::ls;

fn latest(component: &str) -> Selector {
    Selector { component: Some(component.to_owned()), ..Selector::default() }
}

#[test]
fn the_latest_is_never_an_incomplete_one_unless_it_is_asked_for() {
    let mut fixture = Fixture::new();
    let good = fixture.back_up("data", &files([("a", noise(1, 10))]));
    let bad = fixture.back_up_with("data", &files([("a", noise(2, 10))]), &["/srv/secret"]);
    let only_bad = fixture.back_up_with("logs", &files([("b", noise(3, 10))]), &["/srv/secret"]);
    let find = |selector: &Selector| find::snapshot(&fixture.repository, selector);
    assert_eq!(find(&latest("data")).unwrap().0, good);
    assert_eq!(find(&Selector { include_incomplete: true, ..latest("data") }).unwrap().0, bad);
    let by_id = Selector { which: Which::Id(bad.to_hex()[..12].to_owned()), ..Selector::default() };
    assert_eq!(find(&by_id).unwrap().0, bad);
    let error = find(&latest("logs")).unwrap_err();
    assert_eq!(error.code(), codes::SNAPSHOT_NOT_FOUND);
    assert!(error.hint().unwrap().contains(&only_bad.short()), "{:?}", error.hint());
}

#[test]
fn at_gives_the_newest_that_is_not_newer() {
    let mut fixture = Fixture::new();
    let ids: Vec<_> = (0..3).map(|n| fixture.back_up("data", &files([("a", noise(n, 10))]))).collect();
    let times: Vec<_> = ids.iter().map(|id| fixture.repository.snapshot(*id).unwrap().time.0).collect();
    let find = |time| {
        let selector = Selector { which: Which::At(time), ..Selector::default() };
        find::snapshot(&fixture.repository, &selector).map(|(id, _)| id)
    };
    for (id, time) in ids.iter().zip(&times) {
        assert_eq!(find(*time).unwrap(), *id);
    }
    let nanosecond = jiff::SignedDuration::from_nanos(1);
    assert_eq!(find(times[2] - nanosecond).unwrap(), ids[1]);
    assert_eq!(find(times[0] - nanosecond).unwrap_err().code(), codes::SNAPSHOT_NOT_FOUND);
}

#[test]
fn what_is_not_there_or_not_clear_is_an_error_that_says_what_there_is() {
    let mut fixture = Fixture::new();
    let empty = find::snapshot(&fixture.repository, &Selector::default()).unwrap_err();
    assert!(empty.hint().unwrap().contains("retoma backup"));
    // Seventeen ids cannot all begin with different digits.
    let ids: Vec<_> = (0..17).map(|n| fixture.back_up("data", &files([("a", noise(n, 10))]))).collect();
    let first = |id: &retoma_repo::SnapshotId| id.to_hex()[..1].to_owned();
    let shared = ids.iter().map(first).find(|digit| ids.iter().filter(|id| first(id) == *digit).count() > 1);
    let find = |prefix: &str| {
        let which = Which::Id(prefix.to_owned());
        find::snapshot(&fixture.repository, &Selector { which, ..Selector::default() })
    };
    let shared = shared.unwrap();
    let error = find(&shared).unwrap_err();
    assert_eq!((error.code(), error.kind()), (codes::AMBIGUOUS_ID, ErrorKind::Invalid));
    assert!(
        ids.iter()
            .filter(|id| first(id) == shared)
            .any(|id| error.hint().unwrap().contains(&id.to_hex()[..16]))
    );
    for bad in ["", "latest", "../..", "ABCDEF"] {
        assert_eq!(find(bad).unwrap_err().code(), codes::SNAPSHOT_NOT_FOUND, "{bad}");
    }
    let other = find::snapshot(&fixture.repository, &latest("models")).unwrap_err();
    assert!(
        other.hint().unwrap().contains("snapshots of `data`; `retoma backup models`"),
        "{:?}",
        other.hint()
    );
    let host = Selector { host: Some("db2".into()), ..Selector::default() };
    assert!(find::snapshot(&fixture.repository, &host).is_err());
}

#[test]
fn paths_are_found_and_listed_in_order() {
    let mut fixture = Fixture::new();
    let id =
        fixture.back_up("data", &files([("a/b/c", noise(1, 7)), ("a/d", noise(2, 8)), ("e", noise(3, 9))]));
    let (repository, index) = (&fixture.repository, fixture.repository.load_index().unwrap());
    let snapshot = repository.snapshot(id).unwrap();
    let node = |path: &str| find::node(repository, &index, &snapshot.tree, path.as_bytes());
    assert_eq!(node("/a/b/c").unwrap().size_bytes, 7);
    assert_eq!(node("a//d/").unwrap().size_bytes, 8);
    assert_eq!(node("/").unwrap().kind, NodeKind::Directory);
    for (missing, hint) in
        [("/a/x", "`/a` has: b, d"), ("e/f", "`/e` is not a directory"), ("..", "`/` has: a, e")]
    {
        let error = node(missing).unwrap_err();
        assert_eq!((error.code(), error.hint()), (codes::PATH_NOT_FOUND, Some(hint)));
    }
    let list = |path: &str, recursive| -> Vec<String> {
        let entries = ls::list(repository, &index, &snapshot, path.as_bytes(), recursive).unwrap();
        entries.map(|entry| String::from_utf8(entry.unwrap().path).unwrap()).collect()
    };
    assert_eq!(list("/", true), ["/a", "/a/b", "/a/b/c", "/a/d", "/e"]);
    assert_eq!(list("a/", false), ["/a/b", "/a/d"]);
    assert_eq!(list("a/b", true), ["/a/b/c"]);
    assert_eq!(list("/e", false), ["/e"]);
}

#[test]
fn a_directory_that_cannot_be_read_is_an_error_beside_the_others() {
    let mut fixture = Fixture::new();
    let id = fixture.back_up("data", &files([("a/x", noise(1, 7)), ("b/y", noise(2, 8))]));
    let repository = &fixture.repository;
    let snapshot = repository.snapshot(id).unwrap();
    let index = repository.load_index().unwrap();
    let broken = find::node(repository, &index, &snapshot.tree, b"a").unwrap().subtree.unwrap();
    let at = index.get(retoma_repo::format::BlobKind::Tree, &broken).unwrap();
    let name = repository.pack_key(at.pack).unwrap();
    let mut bytes = repository.store().get(&name).unwrap().to_vec();
    bytes[at.blob.offset_bytes as usize] ^= 1;
    fixture.store.replace(name.as_str(), bytes);
    let walk: Vec<_> = find::Walk::new(repository, &index, snapshot.tree, b"").collect();
    let shown: Vec<String> = walk
        .iter()
        .map(|entry| match entry {
            Ok(entry) => entry.path.escape_ascii().to_string(),
            Err(error) => error.code().to_string(),
        })
        .collect();
    assert_eq!(shown, ["/a", "R0203", "/b", "/b/y"]);
}

#[test]
fn diff_tells_what_changed_and_how_much() {
    let mut fixture = Fixture::new();
    let before = fixture.back_up(
        "data",
        &files([
            ("gone/file", noise(1, 100)),
            ("kept/same", text(2, 500)),
            ("log", noise(3, 300)),
            ("was-dir/inner", noise(4, 40)),
        ]),
    );
    let after = fixture.back_up(
        "data",
        &files([
            ("kept/same", text(2, 500)),
            ("log", noise(5, 310)),
            ("new", noise(6, 60)),
            ("was-dir", noise(7, 70)),
        ]),
    );
    let repository = &fixture.repository;
    let index = repository.load_index().unwrap();
    let tree = |id| repository.snapshot(id).unwrap().tree;
    let changes = |a, b| -> Vec<(String, ChangeKind, u64, u64)> {
        let show = |change: retoma_repo::ops::diff::Change| {
            let path = String::from_utf8(change.path).unwrap();
            (path, change.kind, change.added_bytes, change.removed_bytes)
        };
        diff(repository, &index, a, b).map(|change| show(change.unwrap())).collect()
    };
    let expect = [
        ("/gone", ChangeKind::Removed, 0, 0),
        ("/gone/file", ChangeKind::Removed, 0, 100),
        ("/log", ChangeKind::Content, 310, 300),
        ("/new", ChangeKind::Added, 60, 0),
        ("/was-dir", ChangeKind::Type, 70, 0),
        ("/was-dir/inner", ChangeKind::Removed, 0, 40),
    ];
    let expect: Vec<_> =
        expect.map(|(path, kind, added, removed)| (path.to_owned(), kind, added, removed)).to_vec();
    assert_eq!(changes(tree(before), tree(after)), expect);
    assert_eq!(changes(tree(after), tree(after)), []);
    let back = changes(tree(after), tree(before));
    assert_eq!(back.len(), expect.len());
    assert!(back.contains(&("/was-dir/inner".to_owned(), ChangeKind::Added, 40, 0)));
}

#[test]
fn a_whole_id_names_a_snapshot_and_a_component_or_host_that_does_not_fit_is_told() {
    let mut fixture = Fixture::new();
    let id = fixture.back_up("data", &files([("a", noise(1, 10))]));
    let find = |prefix: &str, component: Option<&str>| {
        let which = Which::Id(prefix.to_owned());
        let component = component.map(str::to_owned);
        find::snapshot(&fixture.repository, &Selector { component, which, ..Selector::default() })
    };
    let whole = id.to_hex();
    assert_eq!(find(&whole, None).unwrap().0, id);
    assert_eq!(find(&whole[..1], Some("data")).unwrap().0, id);
    let long = find(&format!("{whole}0"), None).unwrap_err();
    assert!(long.message().contains("is not the beginning"), "{long}");
    let other = find(&whole, Some("models")).unwrap_err();
    assert_eq!(other.code(), codes::SNAPSHOT_NOT_FOUND);
    assert!(other.message().contains("of component `models`"), "{other}");
    assert!(other.hint().unwrap().contains("is of component `data`, host `db1`"), "{:?}", other.hint());
    let absent = find(if whole.starts_with('0') { "1" } else { "0" }, None).unwrap_err();
    assert!(absent.hint().unwrap().contains(&id.short()), "{:?}", absent.hint());
}

#[test]
fn a_hint_lists_the_newest_snapshots_and_how_many_more_there_are() {
    let mut fixture = Fixture::new();
    let mut ids = Vec::new();
    for (count, more) in [(8, None), (1, Some("and 1 more")), (2, Some("and 3 more"))] {
        ids.extend((0..count).map(|n| fixture.back_up("data", &files([("a", noise(n, 10))]))));
        let before_all = Which::At(jiff::Timestamp::UNIX_EPOCH);
        let selector = Selector { which: before_all, ..latest("data") };
        let error = find::snapshot(&fixture.repository, &selector).unwrap_err();
        let hint = error.hint().unwrap();
        assert_eq!(ids.iter().rev().take(8).filter(|id| hint.contains(&id.short())).count(), 8, "{hint}");
        assert_eq!(hint.contains("more"), more.is_some(), "{hint}");
        assert!(
            more.is_none_or(|more| hint.ends_with(&format!("{more} in `retoma snapshots data`"))),
            "{hint}"
        );
    }
}

use super::super::tests::planned;
use super::*;
use crate::check::{not_run, ran};
use retoma_core::drill::Seconds;

#[test]
fn what_holds_others_is_restored_before_them_and_the_plans_order_holds_otherwise() {
    let order = |places: &[&str]| {
        let components: Vec<_> = places.iter().map(|place| planned(place, place.ends_with("db"))).collect();
        let order = outer_first(&components).into_iter().map(|it| it.to.display().to_string());
        order.collect::<Vec<_>>()
    };
    let cases: [(&[&str], &[&str]); 5] = [
        (&["/b", "/a", "/c"], &["/b", "/a", "/c"]),
        (&["/a/b/c", "/a/b", "/a"], &["/a", "/a/b", "/a/b/c"]),
        (&["/a/b/c", "/a", "/a/b"], &["/a", "/a/b", "/a/b/c"]),
        // The database is the most important one: what holds it is pulled forward, the others are not.
        (&["/x", "/s/data/db", "/y", "/s", "/s2"], &["/x", "/s", "/s/data/db", "/y", "/s2"]),
        // A file holds nothing, whatever its name begins with.
        (&["/s/db/x", "/s/db"], &["/s/db/x", "/s/db"]),
    ];
    for (places, expected) in cases {
        assert_eq!(order(places), expected, "{places:?}");
    }
}

#[test]
fn only_a_folder_that_is_empty_or_was_begun_is_recovered_into() {
    let cases: [(&[&str], bool); 7] = [
        (&[], true),
        (&["x"], false),
        (&[".retoma-recovering"], true),
        (&[".retoma-recovering", "x", "srv"], true),
        (&["..retoma-recovering.retoma-tmp"], true),
        (&["..retoma-recovering.retoma-tmp", "x"], false),
        (&[".hidden"], false),
    ];
    for (names, is_free) in cases {
        let root = tempfile::tempdir().unwrap();
        for name in names {
            std::fs::write(root.path().join(name), "").unwrap();
        }
        let found = check_folder_is_free(root.path(), &root.path().join(UNFINISHED));
        let expected = if is_free { Ok(()) } else { Err(codes::RESTORE_TARGET) };
        assert_eq!(found.map_err(|error| error.code()), expected, "{names:?}");
    }
    let root = tempfile::tempdir().unwrap();
    let free = |path: &Path| check_folder_is_free(path, &path.join(UNFINISHED));
    free(&root.path().join("absent")).unwrap();
    std::fs::write(root.path().join("file"), "").unwrap();
    free(&root.path().join("file")).unwrap_err();
}

fn recovered(checks: Vec<CheckResult>) -> RecoveredComponent {
    RecoveredComponent {
        component: "c".to_owned(),
        kind: ComponentKind::Files,
        snapshot: SnapshotId::of(b""),
        path: PathBuf::from("/c"),
        files: 1,
        checked: Checked { checks, bytes: 0, rows: None, facts: None },
        recovery: None,
        as_of: jiff::Timestamp::UNIX_EPOCH,
        elapsed: Duration::ZERO,
        ready: Seconds::ZERO,
    }
}

#[test]
fn a_recovery_has_passed_only_when_nothing_at_all_is_wrong() {
    let good = || ran("good", true, "1", "1");
    let whole = || Recovered {
        components: vec![recovered(vec![good()]), recovered(vec![good(), good()])],
        service_checks: vec![good()],
        ..Recovered::default()
    };
    assert!(whole().passed());
    for wrong in [ran("bad", false, "1", "2"), not_run("not run", &"no time")] {
        let mut one = whole();
        one.components[1].checked.checks.push(wrong.clone());
        assert!(!one.passed(), "{wrong:?} of a component");
        let mut one = whole();
        one.service_checks.push(wrong.clone());
        assert!(!one.passed(), "{wrong:?} of the service");
    }
    assert!(!Recovered { damage: vec![Error::internal("an index")], ..whole() }.passed());
    assert!(!Recovered { rolled_back: Some(Error::internal("why")), ..whole() }.passed());
}

#[test]
fn a_server_that_was_started_before_its_folder_was_renamed_is_found_where_it_is_now() {
    let folder = tempfile::tempdir().unwrap();
    let (live, previous) = (folder.path().join("srv"), folder.path().join("srv.retoma-previous-abc"));
    let look =
        |live: &Path| check_not_live_in([Path::new("/other"), &live.join("db")].into_iter(), live, &previous);
    std::fs::create_dir_all(previous.join("db")).unwrap();
    look(&live).unwrap();
    std::fs::write(previous.join("db/postmaster.pid"), format!("{}\n", std::process::id())).unwrap();
    let error = look(&live).unwrap_err();
    assert_eq!((error.code(), error.kind()), (codes::RESTORE_TARGET, ErrorKind::Conflict));
    assert!(error.to_string().contains(&format!("`{}`", live.join("db").display())), "{error}");
}

use super::*;
use retoma_core::drill::ControlOutcome;

fn secret(text: &str) -> Secret<String> {
    Secret::new(text.to_owned())
}

/// A repository below a folder, and the way into it that a drill begins with.
fn begin(folder: &Path) -> (PathBuf, Repository, Ways) {
    let dir = folder.join("repository");
    let password = secret("one");
    let repository = open_address(&address_of(&dir).unwrap(), &password, true).unwrap().repository;
    let ways = Ways::new(&dir, &password);
    (dir, repository, ways)
}

/// Each control's name, and whether it went as it must.
fn tried(ways: &Ways) -> Vec<(String, bool)> {
    let controls = ways.controls();
    controls.into_iter().map(|it| (it.name, it.outcome == ControlOutcome::AsExpected)).collect()
}

fn expected(all: &[&str]) -> Vec<(String, bool)> {
    all.iter().map(|name| ((*name).to_owned(), true)).collect()
}

#[test]
fn a_scenario_that_is_not_about_keys_changes_none() {
    let folder = tempfile::tempdir().unwrap();
    let (_, repository, mut ways) = begin(folder.path());
    let before = repository.key_id();
    for scenario in Scenario::ALL {
        if !matches!(scenario, Scenario::LostKey | Scenario::NewKey) {
            ways.lose(scenario, &repository).unwrap();
        }
    }
    let repository = ways.replace(Scenario::Deletion, repository).unwrap();
    assert_eq!((repository.key_id(), ways.open().unwrap().key_id()), (before, before));
    assert_eq!(ways.password().expose(), "one");
    assert_eq!(tried(&ways), []);
}

#[test]
fn after_a_key_was_replaced_the_new_one_opens_and_the_old_one_must_not() {
    let folder = tempfile::tempdir().unwrap();
    let (dir, repository, mut ways) = begin(folder.path());
    let before = repository.key_id();
    let repository = ways.replace(Scenario::NewKey, repository).unwrap();
    assert_ne!(repository.key_id(), before);
    assert_eq!(ways.open().unwrap().key_id(), repository.key_id());
    assert_ne!(ways.password().expose(), "one");
    assert_eq!(tried(&ways), expected(&["old key"]));
    // Were the old one still there, the drill would say so.
    repository.add_key(&secret("one")).unwrap();
    assert_eq!(tried(&ways), [("old key".to_owned(), false)]);
    let control = ways.controls().remove(0);
    assert_eq!((control.found_code, control.detail.as_str()), (None, "it opens"));
    drop(std::fs::remove_dir_all(dir));
}

#[test]
fn a_lost_key_is_gone_for_good_and_another_password_opens() {
    let folder = tempfile::tempdir().unwrap();
    let (dir, repository, mut ways) = begin(folder.path());
    ways.lose(Scenario::LostKey, &repository).unwrap();
    let opened = ways.open().unwrap();
    assert_ne!(opened.key_id(), repository.key_id());
    assert_eq!(keys::list(&opened).unwrap().len(), 1);
    assert!(!dir.join("keys").join(repository.key_id().to_hex()).exists());
    assert_eq!(tried(&ways), expected(&["lost key"]));
    // Its password opens what comes after the disaster, too.
    let again = open_address(&address_of(&dir).unwrap(), ways.password(), false).unwrap().repository;
    assert_eq!(again.key_id(), opened.key_id());
}

#[test]
fn where_the_user_has_split_a_key_the_threshold_opens_and_one_share_less_does_not() {
    for (threshold, total, controls) in [(3, 5, &["too few shares", "lost key"][..]), (1, 2, &["lost key"])] {
        let folder = tempfile::tempdir().unwrap();
        let (_, repository, mut ways) = begin(folder.path());
        let split = shares::split(threshold, total).unwrap();
        recipients::add(&repository, &split.password, split.wrapping()).unwrap();
        ways.lose(Scenario::LostKey, &repository).unwrap();
        let Way::Shares(kept, _) = &ways.opens else { panic!("{:?}", ways.opens) };
        assert_eq!((kept.len(), kept[0].total()), (usize::from(threshold), total), "as the user's was split");
        let opened = ways.open().unwrap();
        assert_eq!(keys::list(&opened).unwrap().len(), 1, "every other key is lost, the user's shares too");
        assert!(shares::open(opened.store(), &split.shares).is_err());
        assert_eq!(tried(&ways), expected(controls), "{threshold} of {total}");
    }
}

#[test]
fn nothing_may_be_where_a_lost_repository_was() {
    let folder = tempfile::tempdir().unwrap();
    let (dir, repository, mut ways) = begin(folder.path());
    drop(repository);
    ways.bar_lost("near", &dir, &secret("one"));
    assert_eq!(tried(&ways), [("lost repository `near`".to_owned(), false)], "it is still there");
    std::fs::rename(&dir, folder.path().join("away")).unwrap();
    assert_eq!(tried(&ways), expected(&["lost repository `near`"]));
    assert!(ways.open().is_err());
}

#[test]
fn what_is_known_of_ways_is_not_printed() {
    let folder = tempfile::tempdir().unwrap();
    let (_, repository, mut ways) = begin(folder.path());
    ways.lose(Scenario::LostKey, &repository).unwrap();
    let shown = format!("{ways:?}");
    assert!(!shown.contains(ways.password().expose()) && !shown.contains("\"one\""), "{shown}");
}

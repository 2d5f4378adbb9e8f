//! Keys whose passwords are wrapped are keys of restic's too.

use super::store;
use crate::prune::kit::*;
use retoma_core::{ErrorKind, error::codes};
use retoma_repo::ops::keys;
use retoma_repo::{Repository, shares};
use std::process::Command;

#[test]
fn restic_opens_with_the_password_that_the_shares_give_and_does_not_mind_the_recipients() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path();
    let repository = Repository::init(store(path), &secret(PASSWORD)).unwrap();
    back_up(&repository, &files(0..5)).unwrap();
    let split = shares::split(3, 5).unwrap();
    let id = keys::add_wrapped(&repository, &split.password, Some(split.wrapping())).unwrap();
    drop(split.password);

    let few = shares::open(&store(path), &split.shares[..2]).unwrap_err();
    assert_eq!((few.kind(), few.code()), (ErrorKind::Unauthorized, codes::SHARES_FEW));
    let (opened, password) = shares::open(&store(path), &split.shares[1..4]).unwrap();
    assert_eq!(opened.key_id(), id);
    assert_eq!(read_all(&opened).len(), 1);
    restic_check(path);
    let restic = |arguments: &[&str]| {
        let mut command = Command::new("restic");
        command.args(["--no-cache", "--repo"]).arg(path).args(arguments);
        command.env("RESTIC_PASSWORD", password.expose()).output()
    };
    let Ok(listed) = restic(&["snapshots"]) else { return };
    assert!(listed.status.success(), "{}", text(&listed));
    assert!(restic(&["check", "--read-data"]).unwrap().status.success());

    // What the record of the shares says helps, and is not needed.
    std::fs::remove_dir_all(path.join("recipients")).unwrap();
    assert_eq!(shares::open(&store(path), &split.shares[2..]).unwrap().0.key_id(), id);
}

#[test]
fn a_forged_record_does_not_keep_true_shares_from_opening() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path();
    let repository = Repository::init(store(path), &secret(PASSWORD)).unwrap();
    let split = shares::split(2, 3).unwrap();
    keys::add_wrapped(&repository, &split.password, Some(split.wrapping())).unwrap();
    let object = std::fs::read_dir(path.join("recipients")).unwrap().next().unwrap().unwrap().path();
    let mut forged: serde_json::Value = serde_json::from_slice(&std::fs::read(&object).unwrap()).unwrap();
    for check in forged["shares"]["checks"].as_array_mut().unwrap() {
        *check = "0".repeat(32).into();
    }
    forged["shares"]["threshold"] = 1.into();
    std::fs::remove_file(&object).unwrap();
    let json = forged.to_string();
    let id = retoma_repo::id::RecipientId::of(json.as_bytes()).to_hex();
    std::fs::write(path.join("recipients").join(id), json).unwrap();
    assert!(shares::open(&store(path), &split.shares[1..]).is_ok());
    let few = shares::open(&store(path), &split.shares[..1]).unwrap_err();
    assert_eq!(few.code(), codes::SHARES_FEW, "the record does not say how many it takes");
}

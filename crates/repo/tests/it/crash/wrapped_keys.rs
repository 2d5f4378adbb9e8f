//! The process dies at every write of what is done with keys whose passwords are wrapped.

use super::contents;
use crate::prune::disk::{Death, Disk};
use crate::prune::kit::*;
use retoma_core::Result;
use retoma_repo::Repository;
use retoma_repo::format::recipient::Wrapping;
use retoma_repo::ops::keys;
use std::collections::BTreeSet;

/// As those that we make: 256 bits.
const WRAPPED: &str = "aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa";
const OTHER: &str = "bbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbb";

type Operation<'a> = &'a dyn Fn(&Repository) -> Result<()>;

/// Wherever the process dies: the known password and the data are there, and no key is taken for one that somebody knows the password
/// of when nobody does; the same operation goes through afterwards.
#[test]
fn of_wrapped_keys_leaves_no_key_that_nobody_holds_and_nobody_knows_of() {
    let (disk, repository) = new_repository();
    back_up(&repository, &files(0..2)).unwrap();
    let wrapped = keys::add_wrapped(&repository, &secret(WRAPPED), Some(Wrapping::KeyFile)).unwrap();
    let objects = disk.objects();
    let old = wrapped.to_hex();
    let operations: [(Operation<'_>, &[&str]); 3] = [
        (
            &|repository| keys::add_wrapped(repository, &secret(OTHER), Some(Wrapping::KeyFile)).map(drop),
            &["put recipients", "put keys"],
        ),
        (
            &|repository| keys::remove(repository, &old).map(drop),
            &["put locks", "delete keys", "delete recipients", "delete locks"],
        ),
        (
            &|repository| keys::rotate(repository, &old, &secret(OTHER), Some(Wrapping::KeyFile)).map(drop),
            &["put locks", "put recipients", "put keys", "delete keys", "delete recipients", "delete locks"],
        ),
    ];
    for (operation, expected) in operations {
        let whole = Disk::with(objects.clone());
        operation(&repository.through(whole.store())).unwrap();
        assert_eq!(whole.log(), expected);
        let replaces = expected.contains(&"put keys") && expected.contains(&"delete keys");
        for write in 0..expected.len() {
            for death in [Death::Before, Death::After] {
                let dying = Disk::dying(objects.clone(), write, death);
                let outcome = operation(&repository.through(dying.store()));
                assert!(outcome.is_err() || expected[write] == "delete locks");
                let disk = Disk::with(super::without_locks(dying.objects()));
                let opens = |password: &str| Repository::open(disk.store(), &secret(password));
                let opened = opens(PASSWORD).unwrap();
                assert_eq!(contents(&opened), BTreeSet::from([files(0..2)]));
                let listed = keys::list_all(&opened).unwrap();
                let known = listed.keys.iter().filter(|key| key.kind() == "password").count();
                assert_eq!(known, 1, "{death:?} {write} of {expected:?}");
                assert!(!replaces || opens(WRAPPED).is_ok() || opens(OTHER).is_ok(), "one of both opens");
                // Whoever sees what is left over takes it away.
                for nothing in listed.of_nothing {
                    keys::remove(&opened, &nothing.to_hex()).unwrap();
                }
                assert!(keys::list_all(&opened).unwrap().of_nothing.is_empty());
            }
        }
    }
}

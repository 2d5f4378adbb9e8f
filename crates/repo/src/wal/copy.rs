//! Copies archives into another repository: each object is opened, checked, sealed with the other's subkey and made under
//! the same name. `docs/copy.md`.
//!
//! Parts of a segment that either side has whole are passed over. Floors stay: they are what a prune of that repository
//! noted. Nothing is ever written over.

use super::archive::Archive;
use super::listing::servers;
use super::name::WalObject;
use crate::backup::Progress;
use crate::repository::Repository;
use crate::threads;
use retoma_core::postgres::WalFileName;
use retoma_core::{Error, ErrorKind, Result, ResultExt};
use std::collections::HashSet;
use std::sync::{Mutex, PoisonError};

/// Objects that are copied at the same time; segments have 16 MiB, unless a server was made with others.
const WORKERS: usize = 3;

/// What the target lacks of the archives of some components.
#[derive(Debug, Default)]
pub struct WalPlan {
    /// Each server, with its objects in the order of their names: earlier WAL first.
    servers: Vec<(String, u64, Vec<WalObject>)>,
    /// How many objects.
    pub objects: u64,
    /// Their bytes as stored.
    pub bytes: u64,
}

/// What was copied.
#[derive(Debug, Default)]
pub struct WalCopied {
    /// Objects that are in the target now.
    pub objects: u64,
    /// Objects that are damaged in the source, or that the target got meanwhile with other contents.
    pub damaged: Vec<Error>,
}

/// Finds what `to` lacks of the WAL of `components`. Nothing is opened.
///
/// # Errors
/// What the stores say.
pub fn plan(from: &Repository, to: &Repository, components: &[String]) -> Result<WalPlan> {
    let mut plan = WalPlan::default();
    for server in servers(from)?.into_iter().filter(|server| components.contains(&server.component)) {
        let (component, system_identifier) = (server.component, server.system_identifier);
        let mut there: HashSet<WalObject> = HashSet::new();
        Archive::new(to, &component, system_identifier)?.for_each(|object, _| {
            there.insert(object);
        })?;
        let mut found: Vec<(WalObject, u64)> = Vec::new();
        Archive::new(from, &component, system_identifier)?
            .for_each(|object, stored_bytes| found.push((object, stored_bytes)))?;
        let whole: HashSet<WalObject> = found.iter().map(|(object, _)| *object).collect();
        let is_needed = |object: WalObject| match object {
            WalObject::File(_) => true,
            WalObject::Part(part) => {
                let segment = WalObject::File(WalFileName::Segment(part.segment));
                !whole.contains(&segment) && !there.contains(&segment)
            }
        };
        found.retain(|(object, _)| !there.contains(object) && is_needed(*object));
        found.sort_by_cached_key(|(object, _)| object.to_string());
        plan.objects += found.len() as u64;
        plan.bytes += found.iter().map(|(_, bytes)| bytes).sum::<u64>();
        plan.servers.push((
            component,
            system_identifier,
            found.into_iter().map(|(object, _)| object).collect(),
        ));
    }
    Ok(plan)
}

/// Copies what the plan says.
///
/// # Errors
/// `Cancelled`; what the stores say. What was copied stays, and the next copy goes on from there.
pub fn apply(from: &Repository, to: &Repository, plan: &WalPlan, progress: &Progress) -> Result<WalCopied> {
    progress.set_total(plan.objects, 0);
    let mut copied = WalCopied::default();
    for (component, system_identifier, objects) in &plan.servers {
        let from = Archive::new(from, component, *system_identifier)?;
        let to = Archive::new(to, component, *system_identifier)?;
        to.confirm_repository()?;
        copy_server(&from, &to, objects, progress, &mut copied)
            .with_context(|| format!("copy the WAL of `{component}`"))?;
    }
    Ok(copied)
}

fn copy_server(
    from: &Archive,
    to: &Archive,
    objects: &[WalObject],
    progress: &Progress,
    copied: &mut WalCopied,
) -> Result<()> {
    let copied = Mutex::new(copied);
    threads::for_each("copy-wal", WORKERS, objects, |object| {
        progress.check("the transfer")?;
        let result = copy_object(from, to, *object);
        let mut copied = copied.lock().unwrap_or_else(PoisonError::into_inner);
        match result {
            Ok(true) => {
                copied.objects += 1;
                progress.add_file(0);
            }
            Ok(false) => {}
            Err(error) if matches!(error.kind(), ErrorKind::Corrupt | ErrorKind::Conflict) => {
                copied.damaged.push(error);
            }
            Err(error) => return Err(error),
        }
        Ok(())
    })
}

/// `false` when it is gone meanwhile: pruned, or a part whose segment is whole now.
fn copy_object(from: &Archive, to: &Archive, object: WalObject) -> Result<bool> {
    match object {
        WalObject::File(name) => match from.fetch(name)? {
            Some(bytes) => to.push(name, &bytes).map(|_| true),
            None => Ok(false),
        },
        WalObject::Part(part) => match from.read(object)? {
            Some(bytes) => {
                from.verify_part(part, &bytes)?;
                to.create(object, &bytes).map(|_| true)
            }
            None => Ok(false),
        },
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::store::{BlockingStore, ObjectStore};
    use crate::wal::name::PartName;
    use retoma_core::postgres::SegmentName;
    use retoma_core::{Secret, error::codes};
    use std::sync::Arc;

    fn repository() -> Repository {
        let store = BlockingStore::new(Arc::new(ObjectStore::memory())).unwrap();
        Repository::init(store, &Secret::new("a test".to_owned())).unwrap()
    }

    /// Sealed by somebody who has the key, under its own name, and yet not what the name says.
    #[test]
    fn what_opens_and_is_no_wal_is_named_and_not_copied() {
        let segment: SegmentName = "000000010000000000000007".parse().unwrap();
        let part = |from, to| WalObject::Part(PartName::new(segment, from, to).unwrap());
        for (object, bytes) in [
            (part(0, 100), &b"too short"[..]),
            (part(100, 104), b"longer"),
            (part(0, 100), &[7; 100]),
            (WalObject::File(WalFileName::Segment(segment)), b"no segment"),
            (WalObject::File("00000002.history".parse().unwrap()), b"no history"),
        ] {
            let (source, target) = (repository(), repository());
            Archive::new(&source, "db", 7).unwrap().create(object, bytes).unwrap();
            let plan = plan(&source, &target, &["db".to_owned()]).unwrap();
            assert_eq!(plan.objects, 1);
            let copied = apply(&source, &target, &plan, &Progress::default()).unwrap();
            let told: Vec<_> = copied.damaged.iter().map(Error::code).collect();
            assert_eq!((copied.objects, &told[..]), (0, &[codes::WAL_MALFORMED][..]), "{object}");
            assert_eq!(
                super::plan(&source, &target, &["db".to_owned()]).unwrap().objects,
                1,
                "{object} is there"
            );
        }
    }
}

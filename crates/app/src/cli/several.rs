//! Which of several repositories `restore` and `recover` read, and what they took from the others. `docs/repositories.md`.

use crate::context::Context;
use crate::output;
use jiff::Timestamp;
use retoma_control::choose::{self, Candidate, Chosen, Wanted};
use retoma_control::{open, transit};
use retoma_core::manifest::{self, Scheme, TransitKey};
use retoma_core::share::Share;
use retoma_core::units::{ByteSize, counted};
use retoma_core::{Error, Result, Secret, error::codes};
use retoma_repo::Repository;
use retoma_repo::copies::Taken;
use retoma_repo::format::snapshot::TAG_MANIFEST;
use retoma_repo::ops::find;
use retoma_repo::shares;
use retoma_repo::store::Address;
use serde_json::{Value, json};
use std::collections::BTreeMap;
use std::sync::Arc;

/// A repository of the manifest; as it was, where a moment is given.
pub(super) fn of_manifest(described: &manifest::Repository, as_of: Option<Timestamp>) -> Candidate {
    let (name, is_local) = (described.name.clone(), described.scheme == Scheme::File);
    let described = described.clone();
    let open = Arc::new(move || match as_of {
        Some(time) => open::open_as_of(&described, time),
        None => open::open_repository(&described, false).map(|opened| opened.repository),
    });
    Candidate { name, is_local, open }
}

/// What opens a repository by its address, on a machine without a manifest.
#[derive(Clone)]
pub(super) enum Way {
    /// A password.
    Password(Secret<String>),
    /// Shares; they may be of several sets, one for each repository.
    Shares(Arc<Vec<Share>>),
    /// What a transit engine unwraps.
    Transit(TransitKey),
}

/// The repository at `url`; as it was, where a moment is given.
///
/// # Errors
/// `R0304` about the address.
pub(super) fn of_address(url: &str, way: Way, as_of: Option<Timestamp>) -> Result<Candidate> {
    let address: Address = url.parse()?;
    let (name, is_local) = (address.to_string(), matches!(address, Address::Local(_)));
    let open = Arc::new(move || {
        let store = open::open_store_as_of(&address, as_of)?;
        match &way {
            Way::Password(password) => Repository::open(store, password),
            Way::Shares(shares) => shares::open(&store, shares).map(|(repository, _)| repository),
            Way::Transit(key) => transit::open(&store, key).map(|(repository, _)| repository),
        }
    });
    Ok(Candidate { name, is_local, open })
}

/// Opens the one that is to be read, and says what somebody should know about that.
pub(super) fn choose_and_say(
    context: &Context,
    candidates: Vec<Candidate>,
    wanted: &Arc<Wanted>,
) -> Result<Chosen> {
    let are_several = candidates.len() > 1;
    let chosen = choose::choose(candidates, wanted)?;
    for (name, error) in &chosen.unusable {
        context.printer.warning(&format!("repository `{name}` is not used: {error}"));
    }
    chosen.care.iter().for_each(|care| context.printer.warning(care));
    if are_several {
        context.printer.note(&format!("repository `{}` is read", chosen.name));
    }
    Ok(chosen)
}

/// The newest complete snapshot of each component that is not after `at`, or whose id begins so; of those in `only`, where it
/// names some. Where no manifest lies, no service can be recovered.
pub(super) fn newest(
    repository: &Repository,
    at: Option<Timestamp>,
    id: Option<&str>,
    only: &[String],
) -> Result<BTreeMap<String, Timestamp>> {
    let all = repository.snapshots()?;
    if !all.iter().any(|(_, snapshot)| snapshot.has_tag(TAG_MANIFEST)) {
        return Err(retoma_control::recover::no_manifest(at));
    }
    let is_wanted = |component: &str| only.is_empty() || only.iter().any(|name| name == component);
    Ok(choose::newest(&all, |known, snapshot| {
        id.map_or(!snapshot.is_incomplete(), |id| known.to_hex().starts_with(id))
            && snapshot.component().is_some_and(is_wanted)
            && at.is_none_or(|at| snapshot.until() <= at)
    }))
}

/// The snapshot of a component that `selector` asks for, where there is one.
pub(super) fn selected(
    repository: &Repository,
    selector: &find::Selector,
) -> Result<BTreeMap<String, Timestamp>> {
    let name = selector.component.clone().unwrap_or_default();
    match find::snapshot(repository, selector) {
        Ok((_, snapshot)) => Ok(BTreeMap::from([(name, snapshot.time.0)])),
        Err(error) if error.code() == codes::SNAPSHOT_NOT_FOUND => Ok(BTreeMap::new()),
        Err(error) => Err(error),
    }
}

fn taken(repository: &Repository) -> Vec<Taken<'_>> {
    repository.copies().map_or_else(Vec::new, |copies| copies.taken().collect())
}

/// Says what came from other repositories; with names of the manifest, what can be done about that, too.
pub(super) fn say_taken(context: &Context, chosen: &Chosen, has_names: bool) {
    for taken in taken(&chosen.repository) {
        let (own, name) = (&chosen.name, taken.name);
        if let Some(error) = taken.problem {
            context.printer.warning(&format!("repository `{name}` is not used: {error}"));
        }
        if taken.blobs > 0 {
            let count = counted(taken.blobs, "blob", "blobs");
            let mut text =
                format!("{count} ({}) that `{own}` did not give came from `{name}`", ByteSize(taken.bytes));
            if has_names {
                text += &format!(
                    "; look with `retoma verify -r {own}`, and put back what it has lost with `retoma repair -r {own} --from {name}`"
                );
            }
            context.printer.warning(&text);
        }
    }
}

/// Where the data came from, for JSON and records.
pub(super) fn object(chosen: &Chosen) -> Value {
    let copy = |name: &str, blobs: u64, bytes: u64, error: Option<&Error>| json!({ "repository": name, "blobs": blobs, "bytes": bytes, "error": error.map(output::error_object) });
    let mut copies: Vec<Value> = Vec::new();
    for taken in taken(&chosen.repository) {
        let unusable = chosen.unusable.iter().find(|(name, _)| name == taken.name);
        let error = taken.problem.or_else(|| unusable.map(|(_, error)| error));
        copies.push(copy(taken.name, taken.blobs, taken.bytes, error));
    }
    for (name, error) in &chosen.unusable {
        if copies.iter().all(|known| known["repository"] != name.as_str()) {
            copies.push(copy(name, 0, 0, Some(error)));
        }
    }
    json!({ "repository": chosen.name, "copies": copies })
}

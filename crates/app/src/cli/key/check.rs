//! `retoma key check`.

use super::{in_words, object, say_leftovers};
use crate::context::Context;
use crate::exit::Exit;
use crate::output::table;
use retoma_control::{open, unlock};
use retoma_core::Result;
use retoma_core::decide::keys::{self as decide, Key, Kind, Place};
use retoma_core::manifest;
use retoma_repo::Repository;
use retoma_repo::format::recipient::Wrapping;
use retoma_repo::id::KeyId;
use retoma_repo::ops::keys::{self, KeyInfo};
use serde_json::{Value, json};

pub(super) fn run(
    context: &Context,
    repository: &Repository,
    described: &manifest::Repository,
) -> Result<Exit> {
    let listed = keys::list_all(repository)?;
    let own = on_this_host(repository, described);
    let now = jiff::Timestamp::now();
    let engine = match &described.password {
        manifest::SecretRef::Transit(key) if key.is_local() => Place::ThisHost,
        _ => Place::Elsewhere,
    };
    let facts: Vec<Key> = listed.keys.iter().map(|key| fact(key, (own, engine), now)).collect();
    let warnings = decide::check(&facts, now);
    let rows = listed.keys.iter().zip(&facts).map(|(key, fact)| {
        vec![fact.id.clone(), table::printable(&in_words(key)), place(fact.place).to_owned()]
    });
    context.printer.data(&table::table(&["id", "kind", "where"], &rows.collect::<Vec<_>>()));
    for warning in &warnings {
        let (message, hint) = warning.texts();
        context.printer.data(&format!("warning: {message}\n  {hint}"));
    }
    if warnings.is_empty() {
        context.printer.data("no single person or place holds all of it");
    }
    say_leftovers(context, &listed);
    let keys = listed.keys.iter().zip(&facts).map(|(key, fact)| {
        let mut object = object(key);
        object["place"] = json!(place(fact.place).replace(' ', "_"));
        object
    });
    let said = warnings.iter().map(|warning| {
        let (message, hint) = warning.texts();
        json!({ "code": warning.code(), "key": warning.key(), "message": message, "hint": hint })
    });
    let value = json!({ "keys": keys.collect::<Vec<Value>>(), "warnings": said.collect::<Vec<Value>>() });
    context.printer.json("retoma.key/1", value);
    Ok(if warnings.is_empty() { Exit::Ok } else { Exit::Missed })
}

/// The key that the manifest's `password` opens here, where it does.
fn on_this_host(repository: &Repository, described: &manifest::Repository) -> Option<KeyId> {
    if unlock::offered().is_none() {
        return Some(repository.key_id());
    }
    let password = open::secret(&described.password).ok()?;
    Repository::open(repository.store().clone(), &password).ok().map(|opened| opened.key_id())
}

fn fact(key: &KeyInfo, (own, engine): (Option<KeyId>, Place), now: jiff::Timestamp) -> Key {
    let (kind, place) = match &key.wrapping {
        None => (Kind::Password, Place::Unknown),
        Some(Wrapping::KeyFile) => (Kind::KeyFile, Place::Unknown),
        Some(Wrapping::Shares(set)) => {
            (Kind::Shares { threshold: set.threshold, total: set.total() }, Place::Elsewhere)
        }
        Some(Wrapping::Transit(_)) => (Kind::Transit, engine),
        Some(Wrapping::Unknown(_)) => (Kind::Unknown, Place::Unknown),
    };
    // A transit engine decides itself who opens, and where; a password that the manifest names is had here.
    let is_here = own == Some(key.id) && kind != Kind::Transit;
    let place = if is_here { Place::ThisHost } else { place };
    let tried = if key.is_current { now } else { key.created.0 };
    Key { id: key.id.short(), kind, place, tried }
}

fn place(place: Place) -> &'static str {
    match place {
        Place::ThisHost => "this host",
        Place::Elsewhere => "elsewhere",
        Place::Unknown => "unknown",
    }
}

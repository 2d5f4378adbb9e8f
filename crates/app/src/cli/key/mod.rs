//! `retoma key`.

mod check;
pub(super) mod new;

use crate::context::Context;
use crate::exit::Exit;
use crate::output::table;
use clap::Subcommand;
use retoma_core::Result;
use retoma_repo::Repository;
use retoma_repo::format::recipient::Wrapping;
use retoma_repo::ops::keys::{self, KeyInfo};
use serde_json::{Value, json};

#[derive(Debug, clap::Args)]
pub(super) struct Args {
    #[command(subcommand)]
    action: Option<Action>,
}

#[derive(Debug, Subcommand)]
enum Action {
    /// List the keys (the default)
    List,
    /// Add a way in: a password, shares of a split key, a key file, or a transit engine
    Add(new::Args),
    /// Put a new way in in the place of another; the data stay as they are
    Rotate {
        /// The beginning of the id of the key that goes
        id: String,
        #[command(flatten)]
        new: new::Args,
    },
    /// Remove a key; whoever has seen the data keeps what was seen
    Remove {
        /// The beginning of its id
        id: String,
    },
    /// Say where one person or one place holds all
    Check,
}

pub(super) fn run(context: &Context, args: &Args) -> Result<Exit> {
    let loaded = context.manifest()?;
    let described = context.chosen(&loaded.manifest)?;
    let repository = context.open(&loaded.manifest)?;
    match args.action.as_ref().unwrap_or(&Action::List) {
        Action::List => list(context, &repository)?,
        Action::Add(new) => new::add(context, new, &repository, &loaded.manifest, described)?,
        Action::Rotate { id, new } => {
            if !context.confirm(&format!("replace key {id}?"))? {
                return Ok(Exit::Failed);
            }
            new::rotate(context, new, &repository, id, &loaded.manifest, described)?;
        }
        Action::Remove { id } => {
            if !context.confirm(&format!("remove key {id}?"))? {
                return Ok(Exit::Failed);
            }
            let id = keys::remove(&repository, id)?;
            context.printer.data(&format!("key {} removed", id.short()));
            context.printer.json("retoma.key/1", json!({ "removed": id.to_hex() }));
        }
        Action::Check => return check::run(context, &repository, described),
    }
    Ok(Exit::Ok)
}

fn list(context: &Context, repository: &Repository) -> Result<()> {
    let listed = keys::list_all(repository)?;
    let rows = listed.keys.iter().map(|key| {
        let id = format!("{}{}", key.id.short(), if key.is_current { " *" } else { "" });
        let created = key.created.zoned(jiff::tz::TimeZone::system());
        let created = created.strftime("%Y-%m-%d %H:%M:%S").to_string();
        vec![
            id,
            table::printable(&in_words(key)),
            table::printable(&key.username),
            table::printable(&key.hostname),
            created,
        ]
    });
    let heads = ["id", "kind", "user", "host", "created"];
    context.printer.data(&table::table(&heads, &rows.collect::<Vec<_>>()));
    say_leftovers(context, &listed);
    let of_nothing: Vec<String> = listed.of_nothing.iter().map(|id| id.to_hex()).collect();
    let keys: Vec<Value> = listed.keys.iter().map(object).collect();
    context.printer.json("retoma.key/1", json!({ "keys": keys, "of_nothing": of_nothing }));
    Ok(())
}

/// Says what lies in `recipients/` and opens nothing.
fn say_leftovers(context: &Context, listed: &keys::Listed) {
    for id in &listed.of_nothing {
        let id = id.short();
        context.printer.warning(&format!(
            "recipient of key {id}: there is no such key, so what it wraps opens nothing; `retoma key remove {id}` removes it"
        ));
    }
    listed.damaged.iter().for_each(|error| context.printer.explain_warning(error));
}

fn in_words(key: &KeyInfo) -> String {
    match &key.wrapping {
        None => "password".to_owned(),
        Some(Wrapping::KeyFile) => "key file".to_owned(),
        Some(Wrapping::Shares(set)) => format!("shares, {} of {}", set.threshold, set.total()),
        Some(Wrapping::Transit(sealed)) => format!("transit, {}/{}", sealed.mount, sealed.name),
        Some(Wrapping::Unknown(kind)) => format!("unknown ({kind})"),
    }
}

fn object(key: &KeyInfo) -> Value {
    let mut object = json!({ "id": key.id.to_hex(), "kind": key.kind(), "username": key.username,
                             "hostname": key.hostname, "created": key.created.0.to_string(), "current": key.is_current });
    match &key.wrapping {
        Some(Wrapping::Shares(set)) => {
            object["shares"] =
                json!({ "set": set.set.to_string(), "threshold": set.threshold, "total": set.total() });
        }
        Some(Wrapping::Transit(sealed)) => {
            object["transit"] = json!({ "mount": sealed.mount, "name": sealed.name });
        }
        _ => {}
    }
    object
}

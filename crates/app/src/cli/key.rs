//! `retoma key`.

use crate::context::Context;
use crate::exit::Exit;
use crate::output::table;
use clap::Subcommand;
use retoma_core::manifest::SecretRef;
use retoma_core::{Error, ErrorKind, Result, error::codes};
use retoma_repo::ops::keys;
use serde_json::json;

#[derive(Debug, clap::Args)]
pub(super) struct Args {
    #[command(subcommand)]
    action: Option<Action>,
}

#[derive(Debug, Subcommand)]
enum Action {
    /// List the keys (the default)
    List,
    /// Add a password
    Add {
        /// Where the new password is: `file:PATH` or `env:NAME`
        #[arg(long, value_name = "REFERENCE")]
        new_password: String,
    },
    /// Remove a key; whoever has seen the data keeps what was seen
    Remove {
        /// The beginning of its id
        id: String,
    },
}

pub(super) fn run(context: &Context, args: &Args) -> Result<Exit> {
    let loaded = context.manifest()?;
    let repository = context.open(&loaded.manifest)?;
    match args.action.as_ref().unwrap_or(&Action::List) {
        Action::List => {
            let list = keys::list(&repository)?;
            let rows = list.iter().map(|key| {
                let id = format!("{}{}", key.id.short(), if key.is_current { " *" } else { "" });
                let created = key.created.zoned(jiff::tz::TimeZone::system());
                let created = created.strftime("%Y-%m-%d %H:%M:%S").to_string();
                vec![id, table::printable(&key.username), table::printable(&key.hostname), created]
            });
            context
                .printer
                .data(&table::table(&["id", "user", "host", "created"], &rows.collect::<Vec<_>>()));
            let list = list.iter().map(|key| {
                json!({ "id": key.id.to_hex(), "username": key.username, "hostname": key.hostname,
                        "created": key.created.0.to_string(), "current": key.is_current })
            });
            context.printer.json("retoma.key/1", json!({ "keys": list.collect::<Vec<_>>() }));
        }
        Action::Add { new_password } => {
            let reference = SecretRef::parse(new_password).map_err(|reason| {
                Error::new(ErrorKind::Invalid, codes::SECRET_MISSING, reason)
                    .with_hint("name where the new password is: `file:PATH` or `env:NAME`")
            })?;
            let id = keys::add(&repository, &retoma_control::open::secret(&reference)?)?;
            context.printer.data(&format!("key {} added", id.short()));
            context.printer.json("retoma.key/1", json!({ "added": id.to_hex() }));
        }
        Action::Remove { id } => {
            if !context.confirm(&format!("remove key {id}?"))? {
                return Ok(Exit::Failed);
            }
            let id = keys::remove(&repository, id)?;
            context.printer.data(&format!("key {} removed", id.short()));
            context.printer.json("retoma.key/1", json!({ "removed": id.to_hex() }));
        }
    }
    Ok(Exit::Ok)
}

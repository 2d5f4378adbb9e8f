//! The tablespaces of a server that `retoma restore` lays down.

use retoma_control::paths;
use retoma_control::postgres::spaces::{self, PlacedSpace};
use retoma_core::{Error, ErrorKind, Result, error::codes};
use retoma_repo::Repository;
use retoma_repo::format::snapshot::Snapshot;
use retoma_repo::index::Index;
use retoma_repo::restore::{self, OwnersBy, Plan};
use retoma_sources::postgres::{PostgresFacts, facts_of};
use serde_json::Value;
use std::path::Path;

/// A server in a snapshot, and where its tablespaces go. Empty for everything else.
#[derive(Debug, Default)]
pub(super) struct Spaces {
    facts: Option<PostgresFacts>,
    placed: Vec<PlacedSpace>,
    delete: bool,
}

impl Spaces {
    /// Of the server in the snapshot, for a data directory at `data`. `below` is the folder that was named for them; `is_whole`
    /// says whether all of the server is restored, and `delete` whether what is not in the snapshot is removed.
    ///
    /// # Errors
    /// `R0002` for a folder for what has no tablespaces; `R0502` without one where there are some, or where they cannot go there.
    pub(super) fn new(
        (repository, index, snapshot): (&Repository, &Index, &Snapshot),
        data: &Path,
        below: Option<&Path>,
        (is_whole, delete): (bool, bool),
    ) -> Result<Self> {
        let Some(facts) = facts_of(repository, index, &snapshot.tree)? else {
            return match below {
                None => Ok(Self::default()),
                Some(_) => {
                    Err(Error::new(ErrorKind::Invalid, codes::USAGE, "this snapshot has no tablespaces")
                        .with_hint("`--tablespaces` is for the physical backup of a PostgreSQL server"))
                }
            };
        };
        let placed = match below {
            _ if !is_whole || facts.tablespaces.is_empty() => Vec::new(),
            Some(below) => {
                let below = paths::target_folder(below, "--tablespaces")?;
                let placed = spaces::place(&facts, &below, data)?;
                if !delete {
                    spaces::check_empty(&placed)?;
                }
                placed
            }
            None => return Err(unplaced(&facts)),
        };
        Ok(Self { facts: Some(facts), placed, delete })
    }

    /// What a restore of the data directory must not lay down.
    pub(super) fn leave_out(&self) -> Vec<Vec<u8>> {
        self.facts.as_ref().map(spaces::leave_out).unwrap_or_default()
    }

    /// How each of them is restored: whether times are trusted, and what decides whose the files are.
    ///
    /// # Errors
    /// As [`restore::plan`].
    pub(super) fn plans<'a>(
        &self,
        (repository, index, snapshot): (&'a Repository, &'a Index, &Snapshot),
        (trust_mtime, owners): (bool, OwnersBy),
    ) -> Result<Vec<Plan<'a>>> {
        let plan = |placed: &PlacedSpace| {
            let options = restore::Options { trust_mtime, owners, ..placed.options(self.delete) };
            restore::plan(repository, index, snapshot.tree, &options, &placed.to)
        };
        self.placed.iter().map(plan).collect()
    }

    /// Leads the data directory to them, when they are there.
    ///
    /// # Errors
    /// What the file system says.
    pub(super) fn link(&self, data: &Path) -> Result<()> {
        spaces::link(data, self.placed.iter().map(|placed| (placed.space.oid, placed.to.as_path())))
    }

    /// The server, where there is one.
    pub(super) fn facts(&self) -> Option<&PostgresFacts> {
        self.facts.as_ref()
    }

    /// Where they go, by their names.
    pub(super) fn json(&self) -> Value {
        let place =
            |placed: &PlacedSpace| (placed.space.name.clone(), placed.to.display().to_string().into());
        Value::Object(self.placed.iter().map(place).collect())
    }
}

fn unplaced(facts: &PostgresFacts) -> Error {
    let names: Vec<String> = facts.tablespaces.iter().map(|space| format!("`{}`", space.name)).collect();
    let message =
        format!("the server has tablespaces, which lie outside of its data directory: {}", names.join(", "));
    Error::new(ErrorKind::Invalid, codes::RESTORE_TARGET, message).with_hint(
        "name a folder for them with `--tablespaces DIR`: it gets one folder for each, and the restored server uses these; `retoma \
         recover --only COMPONENT --to DIR` brings them too",
    )
}

//! What opens the drill's copy of a repository after the disaster, and what must not. `docs/drill.md`, "Keys".

use super::address_of;
use super::disaster::Scenario;
use crate::open::{open_address, open_store};
use retoma_core::drill::ControlResult;
use retoma_core::share::Share;
use retoma_core::{Code, Result, ResultExt, Secret, error::codes};
use retoma_repo::format::recipient::ShareSet;
use retoma_repo::ops::keys;
use retoma_repo::{Folder, Repository, recipients, shares};
use std::path::{Path, PathBuf};

/// Something that may open a repository.
#[derive(Debug)]
enum Way {
    Password(Secret<String>),
    /// With the password that they make.
    Shares(Vec<Share>, Secret<String>),
}

impl Way {
    fn open(&self, dir: &Path) -> Result<Repository> {
        let address = address_of(dir)?;
        match self {
            Self::Password(password) => Ok(open_address(&address, password, false)?.repository),
            Self::Shares(shares, _) => Ok(shares::open(&open_store(&address.parse()?)?, shares)?.0),
        }
    }
}

/// What must not open, and the code that says so.
#[derive(Debug)]
struct Barred {
    control: String,
    code: Code,
    dir: PathBuf,
    way: Way,
}

/// The ways into the repository in `dir`, as they are after the disaster.
#[derive(Debug)]
pub(super) struct Ways {
    dir: PathBuf,
    opens: Way,
    barred: Vec<Barred>,
}

impl Ways {
    /// The password that opens now, and nothing else.
    pub(super) fn new(dir: &Path, password: &Secret<String>) -> Self {
        Self { dir: dir.to_owned(), opens: Way::Password(password.clone()), barred: Vec::new() }
    }

    /// Replaces the key in use, where the scenario says so, and gives the repository as it is open from then on.
    ///
    /// # Errors
    /// As [`keys::rotate`].
    pub(super) fn replace(&mut self, scenario: Scenario, repository: Repository) -> Result<Repository> {
        if scenario != Scenario::NewKey {
            return Ok(repository);
        }
        let password = recipients::new_password()?;
        let reopened = keys::change_password(&repository, &password).context("replace the key in use")?;
        self.now(Way::Password(password), "old key");
        Ok(reopened)
    }

    /// Loses the key in use, where the scenario says so, after another way in was made.
    ///
    /// # Errors
    /// What making and removing keys says.
    pub(super) fn lose(&mut self, scenario: Scenario, repository: &Repository) -> Result<()> {
        if scenario != Scenario::LostKey {
            return Ok(());
        }
        if let Some(set) = recipients::read(repository.store())?.share_sets().next() {
            return self.lose_all_but_shares(repository, set);
        }
        let other = recipients::new_password()?;
        keys::add(repository, &other).context("add another key")?;
        let lost = Folder::Keys.key(&repository.key_id().to_hex())?;
        repository.store().delete(&lost).context("lose the key in use")?;
        self.now(Way::Password(other), "lost key");
        Ok(())
    }

    /// Splits a key of our own as the user's is, and loses every other one.
    fn lose_all_but_shares(&mut self, repository: &Repository, set: &ShareSet) -> Result<()> {
        let split = shares::split(set.threshold, set.total())?;
        recipients::add(repository, &split.password, split.wrapping()).context("add a split key")?;
        let reopened = Repository::open(repository.store().clone(), &split.password)?;
        for key in keys::list(&reopened)?.into_iter().filter(|key| key.id != reopened.key_id()) {
            keys::remove(&reopened, &key.id.to_hex()).context("lose every other key")?;
        }
        // Those that are the first to be missing are the others.
        let kept = split.shares.iter().rev().take(usize::from(set.threshold)).cloned();
        let kept: Vec<Share> = kept.collect();
        if let [_, few @ ..] = &kept[..]
            && !few.is_empty()
        {
            let few = Way::Shares(few.to_vec(), split.password.clone());
            self.bar("too few shares".to_owned(), codes::SHARES_FEW, &self.dir.clone(), few);
        }
        self.now(Way::Shares(kept, split.password), "lost key");
        Ok(())
    }

    /// From now on `way` opens; what did until now must not.
    fn now(&mut self, way: Way, control: &str) {
        let before = std::mem::replace(&mut self.opens, way);
        self.bar(control.to_owned(), codes::WRONG_KEY, &self.dir.clone(), before);
    }

    fn bar(&mut self, control: String, code: Code, dir: &Path, way: Way) {
        self.barred.push(Barred { control, code, dir: dir.to_owned(), way });
    }

    /// Nothing may be where a lost repository was.
    pub(super) fn bar_lost(&mut self, name: &str, dir: &Path, password: &Secret<String>) {
        let control = format!("lost repository `{name}`");
        self.bar(control, codes::NO_REPOSITORY, dir, Way::Password(password.clone()));
    }

    /// Opens the repository.
    ///
    /// # Errors
    /// As [`Repository::open`].
    pub(super) fn open(&self) -> Result<Repository> {
        self.opens.open(&self.dir)
    }

    /// The password that opens it.
    pub(super) fn password(&self) -> &Secret<String> {
        match &self.opens {
            Way::Password(password) | Way::Shares(_, password) => password,
        }
    }

    /// Tries everything that must not open.
    pub(super) fn controls(&self) -> Vec<ControlResult> {
        let control = |barred: &Barred| {
            let opened = barred.way.open(&barred.dir);
            let found = opened.as_ref().err().map(|error| error.code().as_str());
            let detail = opened.as_ref().map_or_else(ToString::to_string, |_| "it opens".to_owned());
            ControlResult::negative(&barred.control, barred.code.as_str(), found, &detail)
        };
        self.barred.iter().map(control).collect()
    }
}

#[cfg(test)]
mod tests;

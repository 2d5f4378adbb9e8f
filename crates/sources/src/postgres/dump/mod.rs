//! A server that gives neither its files nor its replication, such as a managed one: its databases as `pg_dump` writes them.
//!
//! ```text
//! for each database: session: snapshot exported, contents counted ─▶ pg_dump into a scratch folder ─▶ looked at
//! pg_dumpall: roles ─▶ facts ─▶ the folder as a stream of entries
//! ```
//! The scratch folder holds all dumps at once, uncompressed, so that the repository finds what it has already.

mod facts;
mod tools;

pub use facts::{DUMP_FACTS_PATH, DumpFacts, DumpedDatabase, dump_facts_of};

use super::facts::Database;
use super::programs::Programs;
use super::session::{Access, Session, contents, has_rows_to_dump, roles};
use super::wire::{Address, Connection, Mode, Timeouts};
use crate::ScratchFolder;
use crate::files::PathContent;
use crate::files::node::{self, Owners, unreadable};
use crate::memory::Memory;
use crate::postgres::walk::own_node;
use facts::FACTS_PARTS;
use jiff::Timestamp;
use retoma_core::{Error, ErrorKind, Result, ResultExt as _, error::codes};
use retoma_repo::backup::{Event, Moments, Source};
use retoma_repo::format::tree::NodeKind;
use std::collections::{BTreeSet, VecDeque};
use std::os::unix::ffi::OsStrExt as _;
use std::os::unix::fs::{DirBuilderExt as _, OpenOptionsExt as _};
use std::path::Path;
use tools::Tool;

/// The file of roles and settings beside the folder of the databases.
pub const GLOBALS: &str = "globals.sql";
/// The folder of the databases, one folder in it for each.
pub const DATABASES: &str = "databases";
/// What `pg_dump` writes for a table without rows.
const EMPTY_TABLE_BYTES: u64 = 5;
/// So many connections dump one database at once.
const JOBS: usize = 4;

/// Dumps of all databases of a server, from [`DumpSource::begin`] until the last event. Dropping it removes them.
#[derive(Debug)]
pub struct DumpSource<'a> {
    facts: DumpFacts,
    component: String,
    /// What is still to be done. It is done when the first event is asked for: whoever asks has the repository's lock by then.
    pending: Option<Pending<'a>>,
    steps: VecDeque<Event>,
    /// Goes with the source.
    scratch: Option<ScratchFolder>,
}

/// What a dump needs.
struct Pending<'a> {
    address: Address,
    session: Session,
    programs: Programs,
    previous: Option<DumpFacts>,
    is_stopped: &'a (dyn Fn() -> bool + Sync),
}

impl std::fmt::Debug for Pending<'_> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Pending").field("address", &self.address).finish_non_exhaustive()
    }
}

impl<'a> DumpSource<'a> {
    /// Looks at the server at `address`. Its first event dumps every database that lets us in, and its roles, which takes as long as
    /// reading all of it. In the snapshot they lie in the folder `/component`. `previous` is what the parent snapshot says;
    /// `is_stopped` ends the dump.
    ///
    /// # Errors
    /// `R0411` to `R0419` from the server; `R0424` without the programs of its version. With the first event: `R0427` when one of
    /// them fails; `R0403` when a database had rows and has none; `Cancelled`.
    pub fn begin(
        address: &Address,
        component: &str,
        previous: Option<&DumpFacts>,
        is_stopped: &'a (dyn Fn() -> bool + Sync),
    ) -> Result<Self> {
        let mut session = Session::ask(address)?;
        let facts = DumpFacts::ask(&mut session)?;
        let programs = Programs::client(facts.version_num / 10_000)?;
        let pending =
            Pending { address: address.clone(), session, programs, previous: previous.cloned(), is_stopped };
        Ok(Self {
            facts,
            component: component.to_owned(),
            pending: Some(pending),
            steps: VecDeque::new(),
            scratch: None,
        })
    }

    /// What was captured; complete after the first event.
    pub fn facts(&self) -> &DumpFacts {
        &self.facts
    }

    /// What is backed up: the component's folder.
    pub fn paths(&self) -> Vec<String> {
        vec![format!("/{}", self.component)]
    }

    /// Dumps everything, and lays the events down.
    fn dump(&mut self, mut pending: Pending<'_>) -> Result<()> {
        let facts = &mut self.facts;
        let scratch = &*self.scratch.insert(ScratchFolder::new("retoma-dump-")?);
        let Pending { address, programs, is_stopped, .. } = &pending;
        let tool = Tool { programs, address, scratch: scratch.path(), is_stopped };
        let root = scratch.path().join("dump");
        make(&root)?;
        make(&root.join(DATABASES))?;
        let globals = root.join(GLOBALS);
        private(&globals)?;
        // What is refused shall be refused now, and not after hours; what is kept is written at the end.
        tool.globals(&globals, facts.has_passwords)?;
        let mut needed = BTreeSet::new();
        facts.time = Timestamp::now();
        for at in 0..facts.databases.len() {
            let name = facts.databases[at].database.name.clone();
            let Some(folder) = facts.databases[at].folder.clone() else { continue };
            let place = root.join(DATABASES).join(folder);
            let found = database(&tool, address, &name, &place, &mut needed);
            let dumped = found.with_context(|| format!("dump the database `{name}`"))?;
            facts.databases[at].database.contents = Some(dumped.contents);
            facts.latest = Some(dumped.exported);
            facts.said.extend(dumped.said);
        }
        // After the last database: each role that one of them knows is older than this.
        facts.said.extend(tool.globals(&globals, facts.has_passwords)?);
        check_roles(&needed, &pending.session.roles()?)?;
        facts.ended = Some(Timestamp::now());
        facts.compare(pending.previous.as_ref())?;
        self.lay_down(&root)
    }

    fn lay_down(&mut self, root: &Path) -> Result<()> {
        let (facts, steps, component) = (&self.facts, &mut self.steps, self.component.as_str());
        let [folder, name] = FACTS_PARTS;
        let json = facts.to_json()?;
        let mut node = own_node(name, NodeKind::File, 0o600);
        node.size_bytes = json.len() as u64;
        steps.push_back(Event::Enter(Box::new(own_node(folder, NodeKind::Directory, 0o700))));
        steps.push_back(Event::Entry(Box::new(node), Box::new(Memory::new(json))));
        steps.extend([Event::Leave, Event::Enter(Box::new(own_node(component, NodeKind::Directory, 0o700)))]);
        entries(root, &mut Owners::read(), steps)?;
        steps.extend(facts.databases.iter().filter(|it| it.is_refused).map(|it| refused(component, it)));
        steps.push_back(Event::Leave);
        Ok(())
    }
}

impl Source for DumpSource<'_> {
    fn next(&mut self) -> Result<Option<Event>> {
        if let Some(pending) = self.pending.take() {
            self.dump(pending)?;
        }
        Ok(self.steps.pop_front())
    }

    fn moments(&self) -> Option<Moments> {
        let earliest = self.facts.time;
        Some(Moments { earliest, latest: self.facts.latest.unwrap_or(earliest) })
    }
}

/// Looks whether the server at `address` can be dumped from here. Gives the major version, and what needs care.
///
/// # Errors
/// Why not; see [`DumpSource::begin`].
pub fn examine_dump(address: &Address) -> Result<(u32, Vec<String>)> {
    let facts = DumpFacts::ask(&mut Session::ask(address)?)?;
    let major = facts.version_num / 10_000;
    Programs::client(major)?;
    Ok((major, facts.left_out().into_iter().chain(facts.refused()).collect()))
}

/// The event for a database that lets others in, and not us.
fn refused(component: &str, dumped: &DumpedDatabase) -> Event {
    let name = dumped.database.name.escape_debug();
    let message = format!("the database `{name}` refuses the user of the backup and is not dumped");
    let error = Error::new(ErrorKind::Unauthorized, codes::POSTGRES_RIGHT, message)
        .with_hint("`GRANT CONNECT ON DATABASE` to the user");
    Event::Unreadable(format!("/{component}/{DATABASES}/{name}").into_bytes(), error)
}

/// # Errors
/// `R0427` when a role that a dumped database may name was dropped before the roles were dumped.
fn check_roles(needed: &BTreeSet<String>, there: &BTreeSet<String>) -> Result<()> {
    let Some(gone) = needed.difference(there).next() else { return Ok(()) };
    let message = format!("the role `{}` was dropped while the databases were dumped", gone.escape_debug());
    Err(Error::new(ErrorKind::Conflict, codes::POSTGRES_DUMP, message)
        .with_hint("run the backup again: what was dumped may name the role, which would not come back"))
}

/// Makes an empty file for ourselves alone: what is written into it keeps that.
fn private(path: &Path) -> Result<()> {
    let mut options = std::fs::OpenOptions::new();
    options.write(true).create_new(true).mode(0o600);
    options.open(path).map(drop).map_err(|error| Error::io(path.display(), error))
}

/// One database that was dumped.
struct Dumped {
    contents: super::Contents,
    /// What `pg_dump` had to say.
    said: Vec<String>,
    /// By our clock, just after the moment that it shows.
    exported: Timestamp,
}

/// Dumps one database as of one moment; the roles there are then are added to `needed`.
fn database(
    tool: &Tool<'_>,
    address: &Address,
    name: &str,
    place: &Path,
    needed: &mut BTreeSet<String>,
) -> Result<Dumped> {
    let mut connection =
        Connection::connect(&address.clone().with_database(name), Mode::Sql, Timeouts::default())?;
    // As long as this transaction is open, `pg_dump` and its workers see what we see.
    connection.execute("BEGIN ISOLATION LEVEL REPEATABLE READ READ ONLY")?;
    // It waits for as long as the dump takes.
    connection.execute("SET LOCAL idle_in_transaction_session_timeout = 0")?;
    let rows = connection.query("SELECT pg_export_snapshot() AS snapshot")?;
    let exported = Timestamp::now();
    let snapshot = rows.one()?.text("snapshot")?.to_owned();
    needed.extend(roles(&mut connection)?);
    let contents = contents(&mut connection)?;
    let must_have_rows = has_rows_to_dump(&mut connection)?;
    let said = tool.dump(name, &snapshot, place, JOBS)?;
    // The session that exported it must have lived until now.
    connection.execute("COMMIT").context("end the transaction whose snapshot was dumped")?;
    let bytes = data_bytes(place)?;
    if must_have_rows && bytes <= EMPTY_TABLE_BYTES {
        let message = format!("the dump of the database `{name}` has no rows, and the database has");
        return Err(Error::new(ErrorKind::Corrupt, codes::POSTGRES_DUMP, message)
            .with_hint("see that the user may read all tables: `GRANT pg_read_all_data`"));
    }
    Ok(Dumped { contents, said, exported })
}

/// The longest file of a table's rows.
fn data_bytes(place: &Path) -> Result<u64> {
    let mut longest = 0;
    for entry in std::fs::read_dir(place).map_err(|error| unreadable(place, error))? {
        let entry = entry.map_err(|error| unreadable(place, error))?;
        let name = entry.file_name();
        if name.as_bytes().ends_with(b".dat") && name != "toc.dat" {
            longest = longest.max(entry.metadata().map_err(|error| unreadable(&entry.path(), error))?.len());
        }
    }
    Ok(longest)
}

fn make(folder: &Path) -> Result<()> {
    std::fs::DirBuilder::new().mode(0o700).create(folder).map_err(|error| Error::io(folder.display(), error))
}

/// Everything in a folder, by names.
fn entries(folder: &Path, owners: &mut Owners, steps: &mut VecDeque<Event>) -> Result<()> {
    let failed = |error| unreadable(folder, error);
    let names =
        std::fs::read_dir(folder).map_err(failed)?.map(|entry| Ok(entry.map_err(failed)?.file_name()));
    let mut names = names.collect::<Result<Vec<_>>>()?;
    names.sort_unstable();
    for name in names {
        let path = folder.join(&name);
        let stat = rustix::fs::lstat(&path).map_err(|error| unreadable(&path, error))?;
        let node = Box::new(node::from_stat(name.as_bytes(), &stat, owners));
        if node.kind == NodeKind::Directory {
            steps.push_back(Event::Enter(node));
            entries(&path, owners, steps)?;
            steps.push_back(Event::Leave);
        } else {
            steps.push_back(Event::Entry(node, Box::new(PathContent::new(path))));
        }
    }
    Ok(())
}

impl DumpFacts {
    /// What the server says, before anything is dumped.
    fn ask(session: &mut Session) -> Result<Self> {
        let superuser = session.one("SELECT rolname AS value FROM pg_roles WHERE oid = 10")?;
        // Only a superuser may read passwords.
        let has_passwords = session
            .one("SELECT rolsuper::text AS value FROM pg_roles WHERE rolname = current_user")?
            == "true";
        let tablespaces = session.tablespaces()?;
        let mut databases = Vec::new();
        for (number, (database, access)) in session.database_names()?.into_iter().enumerate() {
            let folder = (access == Access::Open).then(|| facts::folder_name(number, &database.name));
            let database = Database { contents: None, ..database };
            databases.push(DumpedDatabase { database, folder, is_refused: access == Access::Refused });
        }
        Ok(Self::new(session.version_num(), superuser, has_passwords, tablespaces, databases))
    }
}

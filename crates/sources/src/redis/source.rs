//! A running server as a source of a backup.

use super::address::Address;
use super::connection::Connection;
use super::facts::{DUMP_NAME, DatabaseKeys, FACTS_PARTS, RedisFacts};
use super::rdb::{Passed, Rdb};
use super::server::Server;
use super::transfer::{Position, Transfer};
use crate::memory::Memory;
use retoma_core::{Error, Result, ResultExt};
use retoma_repo::backup::{Content, Event, Found, Reader, Source};
use retoma_repo::format::tree::{Node, NodeKind};
use retoma_repo::host;
use std::collections::{BTreeMap, VecDeque};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

/// The place of the facts, which are known last.
const FACTS: u32 = 0;

/// One capture of a running server, from [`RedisSource::begin`] until the last event. Dropping it before ends the transfer.
#[derive(Debug)]
pub struct RedisSource {
    path: String,
    server: Server,
    is_private: bool,
    said: BTreeMap<u64, DatabaseKeys>,
    position: Position,
    previous: Option<RedisFacts>,
    outcome: Outcome,
    facts: Option<RedisFacts>,
    steps: VecDeque<Event>,
    has_settled: bool,
}

/// What became of the transfer: nothing until it ends.
#[derive(Debug, Clone, Default)]
struct Outcome(Arc<Mutex<Option<Result<Passed>>>>);

impl Outcome {
    fn lock(&self) -> MutexGuard<'_, Option<Result<Passed>>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Keeps an error for the end of the backup, and gives one like it to whoever reads.
    fn fail(&self, error: Error) -> Error {
        let mut copy = Error::new(error.kind(), error.code(), error.message().to_owned());
        if let Some(hint) = error.hint() {
            copy = copy.with_hint(hint.to_owned());
        }
        self.lock().get_or_insert(Err(error));
        copy
    }
}

impl RedisSource {
    /// Connects to the server at `address` and asks for its data set; this waits until the server begins to send it. In the
    /// snapshot it lies in the folder `/component`. `previous` is what the parent snapshot knows.
    ///
    /// # Errors
    /// `R0430` to `R0436` from the server; `R0438` when it does not give its data set away.
    pub fn begin(address: &Address, component: &str, previous: Option<RedisFacts>) -> Result<Self> {
        let [facts_folder, facts_name] = FACTS_PARTS;
        if component.is_empty()
            || component.contains(['/', '\0'])
            || component.as_bytes() <= facts_folder.as_bytes()
        {
            return Err(Error::internal("a component has a name that is none"));
        }
        let mut connection = Connection::connect(address)?;
        let (server, said) = Server::look(&mut connection)?;
        let is_private = connection.is_private();
        let transfer = Transfer::begin(connection).context("ask for the data set")?;
        let (position, outcome) = (transfer.position().clone(), Outcome::default());
        let mut dump = node(DUMP_NAME, NodeKind::File, 0o600);
        dump.size_bytes = transfer.length().unwrap_or(0);
        let content = Dump { transfer: Some(transfer), outcome: outcome.clone() };
        let steps = VecDeque::from([
            Event::Enter(node(facts_folder, NodeKind::Directory, 0o700)),
            Event::Reserve(FACTS, facts_name.into()),
            Event::Leave,
            Event::Enter(node(component, NodeKind::Directory, 0o700)),
            Event::Entry(dump, Box::new(content)),
            Event::Leave,
            Event::Settle,
        ]);
        let path = format!("/{component}/{DUMP_NAME}");
        let (facts, has_settled) = (None, false);
        Ok(Self { path, server, is_private, said, position, previous, outcome, facts, steps, has_settled })
    }

    /// The server.
    pub fn server(&self) -> &Server {
        &self.server
    }

    /// Whether nobody on a network sees what is sent.
    pub fn is_private(&self) -> bool {
        self.is_private
    }

    /// What was captured; known after the last event.
    pub fn facts(&self) -> Option<&RedisFacts> {
        self.facts.as_ref()
    }

    /// What is backed up: the component's folder.
    pub fn paths(&self) -> Vec<String> {
        vec![self.path.trim_end_matches(DUMP_NAME).trim_end_matches('/').to_owned()]
    }

    /// The transfer has ended: what it was goes into the facts.
    fn finish(&mut self) -> Result<Event> {
        let passed = self.outcome.lock().take();
        let passed = passed.ok_or_else(|| Error::internal("the data set was not read"))??;
        let (path, said) = (self.path.clone(), std::mem::take(&mut self.said));
        let facts = RedisFacts::new(path, self.server.clone(), said, &self.position, passed);
        facts.compare(self.previous.as_ref())?;
        let json = facts.to_json()?;
        self.facts = Some(facts);
        let [_, name] = FACTS_PARTS;
        let mut file = node(name, NodeKind::File, 0o600);
        file.size_bytes = json.len() as u64;
        Ok(Event::Late(FACTS, Box::new(Event::Entry(file, Box::new(Memory::new(json))))))
    }
}

impl Source for RedisSource {
    fn next(&mut self) -> Result<Option<Event>> {
        if let Some(step) = self.steps.pop_front() {
            return Ok(Some(step));
        }
        if self.has_settled {
            return Ok(None);
        }
        self.has_settled = true;
        self.finish().map(Some)
    }
}

/// A node of ours, as of now: it is never the same as in a parent snapshot.
fn node(name: &str, kind: NodeKind, mode: u32) -> Box<Node> {
    let mut node = Node::new(name, kind);
    let now = host::now();
    (node.uid, node.gid) = host::ids();
    (node.mode, node.mtime, node.atime, node.ctime) = (mode, now, now, now);
    Box::new(node)
}

/// The data set's contents.
struct Dump {
    transfer: Option<Transfer>,
    outcome: Outcome,
}

impl Content for Dump {
    fn describe(&mut self, _node: &mut Node) -> Result<Found> {
        Ok(Found::There)
    }

    fn open(&mut self) -> Result<Box<dyn Reader>> {
        let transfer = self.transfer.take().ok_or_else(|| Error::internal("a capture is read twice"))?;
        Ok(Box::new(DumpReader { transfer, rdb: Rdb::new(), outcome: self.outcome.clone() }))
    }
}

struct DumpReader {
    transfer: Transfer,
    rdb: Rdb,
    outcome: Outcome,
}

impl Reader for DumpReader {
    fn size_bytes(&self) -> Option<u64> {
        self.transfer.length()
    }

    fn read(&mut self, buffer: &mut [u8]) -> Result<usize> {
        let count = self.transfer.read(buffer).map_err(|error| self.outcome.fail(error))?;
        self.rdb.pass(&buffer[..count]);
        Ok(count)
    }

    fn finish(&mut self, _read_bytes: u64) -> Result<()> {
        let passed = std::mem::take(&mut self.rdb).finish().map_err(|error| self.outcome.fail(error))?;
        self.outcome.lock().get_or_insert(Ok(passed));
        Ok(())
    }
}

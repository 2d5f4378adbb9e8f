//! A store that fails as it is told to.
//!
//! Scripted: [`Rule`]s say which calls fail and how. Random: [`Rates`] and a seed do; whether a call fails depends on
//! the seed, verb, name and how often that pair was called, never on the order in which threads run. Every call is
//! written to a log.

mod rule;

pub use rule::{Fault, Rates, Rule, When};

use crate::data::mix;
use async_trait::async_trait;
use bytes::Bytes;
use futures::stream::{self, BoxStream, StreamExt as _};
use retoma_repo::store::{Capabilities, Key, Leftovers, ObjectMeta, PutMode, Store, Verb};
use retoma_repo::{Error, ErrorKind, Result};
use std::collections::HashMap;
use std::future::pending;
use std::ops::Range;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

/// One call and what was done to it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Call {
    /// Its verb.
    pub verb: Verb,
    /// The object's name, or the folder of a listing.
    pub name: String,
    /// What was done to it; nothing for a call that passed.
    pub fault: Option<Fault>,
}

/// What a test does before a call, given its verb and name; an error becomes the call's.
type Hook = Box<dyn FnMut(Verb, &str) -> Result<()> + Send>;

/// A [`Store`] around another one, with faults. Without rules and rates it passes everything.
pub struct FaultyStore {
    inner: Arc<dyn Store>,
    state: Mutex<State>,
    hook: Mutex<Option<Hook>>,
    random: Option<(u64, Rates)>,
    far: bool,
}

impl std::fmt::Debug for FaultyStore {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "FaultyStore({:?})", self.inner)
    }
}

#[derive(Debug, Default)]
struct State {
    /// Each rule with how many calls fitted it so far.
    rules: Vec<(Rule, u64)>,
    seen: HashMap<(Verb, String), u64>,
    log: Vec<Call>,
}

impl FaultyStore {
    /// Passes all calls to `inner`, until a rule is added.
    pub fn new(inner: Arc<dyn Store>) -> Self {
        Self { inner, state: Mutex::default(), hook: Mutex::default(), random: None, far: false }
    }

    /// Says that it is far, as a bucket is.
    #[must_use]
    pub fn far(self) -> Self {
        Self { far: true, ..self }
    }

    /// Fails calls at random, as often as `rates` say, the same in every run with this `seed`.
    pub fn random(inner: Arc<dyn Store>, seed: u64, rates: Rates) -> Self {
        Self { random: Some((seed, rates)), ..Self::new(inner) }
    }

    /// Adds a rule; the first one that fits a call and is due decides. Rules come before [`Rates`].
    pub fn add(&self, rule: Rule) {
        self.locked().rules.push((rule, 0));
    }

    /// Adds a rule while building.
    #[must_use]
    pub fn with(self, rule: Rule) -> Self {
        self.add(rule);
        self
    }

    /// Does `hook` before every call: what somebody else does to the store just then. It must not use a `BlockingStore`
    /// but in a thread of its own, since it runs inside one.
    pub fn before_calls(&self, hook: impl FnMut(Verb, &str) -> Result<()> + Send + 'static) {
        *self.hook.lock().unwrap_or_else(PoisonError::into_inner) = Some(Box::new(hook));
    }

    fn run_hook(&self, verb: Verb, name: &str) -> Result<()> {
        let mut hook = self.hook.lock().unwrap_or_else(PoisonError::into_inner);
        hook.as_mut().map_or(Ok(()), |hook| hook(verb, name))
    }

    /// Forgets all rules; calls pass from now on, and random faults go on.
    pub fn clear_rules(&self) {
        self.locked().rules.clear();
    }

    /// Every call so far, in the order in which they began.
    pub fn log(&self) -> Vec<Call> {
        self.locked().log.clone()
    }

    /// How many calls of `verb` there were.
    pub fn calls(&self, verb: Verb) -> usize {
        self.locked().log.iter().filter(|call| call.verb == verb).count()
    }

    /// How many calls were failed or falsified.
    pub fn faults(&self) -> usize {
        self.locked().log.iter().filter(|call| call.fault.is_some()).count()
    }

    fn locked(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Writes the call down and says what happens to it.
    fn next(&self, verb: Verb, name: &str) -> (Option<Fault>, u64) {
        let mut state = self.locked();
        let times = state.seen.entry((verb, name.to_owned())).or_default();
        *times += 1;
        let dice = dice(self.random.map_or(0, |(seed, _)| seed), verb, name, *times);
        let mut fault = None;
        for (rule, fitted) in &mut state.rules {
            if rule.fits(verb, name) {
                *fitted += 1;
                if fault.is_none() && rule.when.is_due(*fitted) {
                    fault = Some(rule.fault);
                }
            }
        }
        let fault = fault.or_else(|| self.random.and_then(|(_, rates)| rates.pick(verb, dice)));
        state.log.push(Call { verb, name: name.to_owned(), fault });
        (fault, mix(dice))
    }

    /// The part of every verb that is the same: error before, hang, or error after.
    async fn read<T>(
        &self,
        verb: Verb,
        name: &str,
        operation: impl Future<Output = Result<T>>,
        corrupt: impl FnOnce(T, u64) -> T,
    ) -> Result<T> {
        self.run_hook(verb, name)?;
        match self.next(verb, name) {
            (None, _) => operation.await,
            (Some(Fault::Error(kind)), _) => Err(failure(kind, verb, name)),
            (Some(Fault::Hang), _) => pending().await,
            (Some(Fault::Corrupt), dice) => Ok(corrupt(operation.await?, dice)),
            (Some(Fault::HalfWrite | Fault::DoneButError), _) => {
                operation.await?;
                Err(failure(ErrorKind::Unavailable, verb, name))
            }
        }
    }
}

fn dice(seed: u64, verb: Verb, name: &str, times: u64) -> u64 {
    let start = mix(seed ^ ((verb as u64 + 1) << 56) ^ times);
    name.bytes().fold(start, |hash, byte| mix(hash.wrapping_mul(31).wrapping_add(u64::from(byte))))
}

/// The error of a fault, with the code that the stores use for this kind.
fn failure(kind: ErrorKind, verb: Verb, name: &str) -> Error {
    use retoma_core::error::codes;
    let code = match kind {
        ErrorKind::NotFound => codes::OBJECT_NOT_FOUND,
        ErrorKind::Conflict => codes::OBJECT_EXISTS,
        ErrorKind::Unauthorized => codes::STORE_DENIED,
        ErrorKind::Exhausted => codes::STORE_FULL,
        ErrorKind::Corrupt => codes::OBJECT_SHORT,
        ErrorKind::Unsupported => codes::STORE_UNSUPPORTED,
        _ => codes::STORE_UNAVAILABLE,
    };
    Error::new(kind, code, format!("scripted fault in {} of `{name}`", verb.as_str()))
}

/// Flips one bit; an empty object has none.
fn flip(data: Bytes, dice: u64) -> Bytes {
    let mut data = Vec::from(data);
    let bits = data.len() as u64 * 8;
    if bits > 0 {
        let bit = dice % bits;
        let byte = usize::try_from(bit / 8).unwrap_or_default();
        data[byte] ^= 1 << (bit % 8);
    }
    data.into()
}

#[async_trait]
impl Store for FaultyStore {
    fn location(&self) -> String {
        self.inner.location()
    }

    fn capabilities(&self) -> Capabilities {
        let capabilities = self.inner.capabilities();
        Capabilities { far: capabilities.far || self.far, ..capabilities }
    }

    async fn put(&self, key: &Key, data: Bytes, mode: PutMode) -> Result<()> {
        self.run_hook(Verb::Put, key.as_str())?;
        let (fault, _) = self.next(Verb::Put, key.as_str());
        match fault {
            None | Some(Fault::Corrupt) => self.inner.put(key, data, mode).await,
            Some(Fault::Error(kind)) => Err(failure(kind, Verb::Put, key.as_str())),
            Some(Fault::Hang) => pending().await,
            Some(Fault::HalfWrite) => {
                let half = data.slice(..data.len() / 2);
                self.inner.put(key, half, mode).await?;
                Err(failure(ErrorKind::Unavailable, Verb::Put, key.as_str()))
            }
            Some(Fault::DoneButError) => {
                self.inner.put(key, data, mode).await?;
                Err(failure(ErrorKind::Unavailable, Verb::Put, key.as_str()))
            }
        }
    }

    async fn get(&self, key: &Key) -> Result<Bytes> {
        self.read(Verb::Get, key.as_str(), self.inner.get(key), flip).await
    }

    async fn get_range(&self, key: &Key, range: Range<u64>) -> Result<Bytes> {
        self.read(Verb::GetRange, key.as_str(), self.inner.get_range(key, range), flip).await
    }

    async fn head(&self, key: &Key) -> Result<ObjectMeta> {
        let wrong_size = |meta: ObjectMeta, _| ObjectMeta { size_bytes: meta.size_bytes ^ 1, ..meta };
        self.read(Verb::Head, key.as_str(), self.inner.head(key), wrong_size).await
    }

    /// `HalfWrite` and `DoneButError` give everything, and an error at the end.
    fn list<'a>(&'a self, folder: &'a str) -> BoxStream<'a, Result<ObjectMeta>> {
        if let Err(error) = self.run_hook(Verb::List, folder) {
            return stream::iter([Err(error)]).boxed();
        }
        let inner = self.inner.list(folder);
        match self.next(Verb::List, folder).0 {
            None | Some(Fault::Corrupt) => inner,
            Some(Fault::Error(kind)) => stream::iter([Err(failure(kind, Verb::List, folder))]).boxed(),
            Some(Fault::Hang) => stream::pending().boxed(),
            Some(Fault::HalfWrite | Fault::DoneButError) => {
                let end = Err(failure(ErrorKind::Unavailable, Verb::List, folder));
                inner.chain(stream::iter([end])).boxed()
            }
        }
    }

    async fn delete(&self, key: &Key) -> Result<()> {
        self.read(Verb::Delete, key.as_str(), self.inner.delete(key), |(), _| ()).await
    }

    async fn remove_leftovers(&self, modified_before: jiff::Timestamp) -> Result<Leftovers> {
        self.inner.remove_leftovers(modified_before).await
    }
}

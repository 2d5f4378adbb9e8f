//! One conversation with an SFTP server: requests go out as they come, answers find their requests by number.
//!
//! Two tasks carry it, one for each direction, so that many requests are under way at once. When either ends, so does
//! the session, and every request that waits gets [`Failure::Lost`] with the reason. Nothing is tried again here.
//!
//! The other side is not trusted: a packet that is too long or malformed, and an answer that nobody asked for, end the
//! session.

use super::wire::{self, Answer, MAX_PACKET_BYTES, Request};
use bytes::{Buf as _, BytesMut};
use std::collections::HashMap;
use std::future::Future;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;
use tokio::io::{AsyncRead, AsyncReadExt as _, AsyncWrite, AsyncWriteExt as _};
use tokio::sync::{mpsc, oneshot};

/// Requests that wait to be written; those behind them wait in their callers.
const OUTGOING: usize = 64;
/// How long a server may take for one answer. Beyond that it hangs, and so would everything that waits for it.
const PATIENCE: Duration = Duration::from_mins(5);

/// Why a request has no good answer.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Failure {
    /// The session ended, for this reason (in words of `ssh`, where it said any).
    Lost(String),
    /// The server refused.
    Status {
        /// `SSH_FX_…`, see [`status`].
        code: u32,
        /// The server's own words.
        message: String,
    },
    /// The server's answer makes no sense.
    Nonsense(&'static str),
}

/// The codes of [`Failure::Status`] that mean something of their own.
pub(super) mod status {
    pub(in crate::store::sftp) const OK: u32 = 0;
    pub(in crate::store::sftp) const END: u32 = 1;
    pub(in crate::store::sftp) const NO_SUCH_FILE: u32 = 2;
    pub(in crate::store::sftp) const PERMISSION_DENIED: u32 = 3;
    pub(in crate::store::sftp) const FAILURE: u32 = 4;
    /// OpenSSH's word for `EINVAL` and `ENAMETOOLONG`.
    pub(in crate::store::sftp) const BAD_MESSAGE: u32 = 5;
    pub(in crate::store::sftp) const UNSUPPORTED: u32 = 8;
}

impl Failure {
    pub(super) fn is(&self, expected: u32) -> bool {
        matches!(self, Self::Status { code, .. } if *code == expected)
    }
}

/// See the module. Dropping it ends the session once what was asked for is written.
#[derive(Debug)]
pub(super) struct Session {
    outgoing: mpsc::Sender<(u32, Request)>,
    waiting: Arc<Waiting>,
    extensions: Vec<String>,
    patience: Duration,
}

/// Requests without an answer.
#[derive(Debug, Default)]
struct Waiting(Mutex<Inner>);

#[derive(Debug, Default)]
struct Inner {
    last: u32,
    by_id: HashMap<u32, oneshot::Sender<Answer>>,
    ended: Option<String>,
}

impl Waiting {
    fn lock(&self) -> MutexGuard<'_, Inner> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// A number for a new request, and where its answer will come.
    fn register(&self) -> Result<(u32, oneshot::Receiver<Answer>), Failure> {
        let mut inner = self.lock();
        if let Some(reason) = &inner.ended {
            return Err(Failure::Lost(reason.clone()));
        }
        let mut id = inner.last.wrapping_add(1);
        // 0 is for the greeting.
        while id == 0 || inner.by_id.contains_key(&id) {
            id = id.wrapping_add(1);
        }
        inner.last = id;
        let (sender, receiver) = oneshot::channel();
        inner.by_id.insert(id, sender);
        Ok((id, receiver))
    }

    /// Whether somebody asked for it. Who no longer waits is no fault of the server.
    fn answer(&self, id: u32, answer: Answer) -> bool {
        match self.lock().by_id.remove(&id) {
            Some(sender) => {
                let _is_awaited = sender.send(answer).is_ok();
                true
            }
            None => false,
        }
    }

    /// Ends the session; the first reason is kept.
    fn end(&self, reason: String) {
        let mut inner = self.lock();
        inner.ended.get_or_insert(reason);
        inner.by_id.clear();
    }

    fn lost(&self) -> Failure {
        Failure::Lost(self.lock().ended.clone().unwrap_or_else(|| "the connection ended".to_owned()))
    }
}

impl Session {
    /// Greets the server behind `input` and `output`. When the conversation ends, `epitaph` turns the reason into the
    /// words for those who wait.
    pub(super) async fn start<E>(
        input: impl AsyncRead + Send + Unpin + 'static,
        output: impl AsyncWrite + Send + Unpin + 'static,
        epitaph: impl FnOnce(String) -> E + Send + 'static,
    ) -> Result<Self, Failure>
    where
        E: Future<Output = String> + Send,
    {
        let waiting = Arc::new(Waiting::default());
        let (greeting, greeted) = oneshot::channel();
        let (outgoing, requests) = mpsc::channel(OUTGOING);
        // Before anything is sent: its number is 0, which no other request has.
        waiting.lock().by_id.insert(0, greeting);
        let sending = tokio::spawn(send(output, requests));
        let ears = waiting.clone();
        tokio::spawn(async move {
            let reason = receive(input, &ears).await;
            sending.abort();
            ears.end(epitaph(reason).await);
        });
        let mut session = Self { outgoing, waiting, extensions: Vec::new(), patience: PATIENCE };
        match session.exchange(0, Request::Init, greeted).await? {
            Answer::Version { version: wire::VERSION, extensions } => {
                let text = |name: bytes::Bytes| String::from_utf8_lossy(&name).into_owned();
                session.extensions = extensions.into_iter().map(text).collect();
                Ok(session)
            }
            Answer::Version { .. } => Err(Failure::Nonsense("it does not speak version 3")),
            _ => Err(Failure::Nonsense("it does not greet")),
        }
    }

    /// Whether nothing can be asked any more.
    pub(super) fn has_ended(&self) -> bool {
        self.waiting.lock().ended.is_some() || self.outgoing.is_closed()
    }

    /// Whether the server offers an extension.
    pub(super) fn offers(&self, extension: &str) -> bool {
        self.extensions.iter().any(|offered| offered == extension)
    }

    /// Asks, and waits for the answer. A status that is not `OK` is a failure.
    pub(super) async fn ask(&self, request: Request) -> Result<Answer, Failure> {
        let (id, answer) = self.waiting.register()?;
        match self.exchange(id, request, answer).await? {
            Answer::Status { code, message } if code != status::OK => {
                Err(Failure::Status { code, message: shown(&message) })
            }
            answer => Ok(answer),
        }
    }

    /// Asks for what has no answer but success.
    pub(super) async fn tell(&self, request: Request) -> Result<(), Failure> {
        match self.ask(request).await? {
            Answer::Status { .. } => Ok(()),
            _ => Err(Failure::Nonsense("it answers with something else than a status")),
        }
    }

    /// Asks for what nobody waits for.
    pub(super) async fn leave(&self, request: Request) {
        if let Ok((id, _)) = self.waiting.register() {
            let _is_sent = self.outgoing.send((id, request)).await.is_ok();
        }
    }

    async fn exchange(
        &self,
        id: u32,
        request: Request,
        answer: oneshot::Receiver<Answer>,
    ) -> Result<Answer, Failure> {
        let both = async {
            // When it cannot be sent, the reason comes with the other direction, which ends, too.
            let _is_sent = self.outgoing.send((id, request)).await.is_ok();
            answer.await.map_err(|_| self.waiting.lost())
        };
        tokio::time::timeout(self.patience, both).await.unwrap_or_else(|_| {
            self.waiting.end(format!("no answer came within {} s", self.patience.as_secs()));
            Err(self.waiting.lost())
        })
    }
}

/// What a server says, on one line and no longer than a message may be.
pub(super) fn shown(text: &[u8]) -> String {
    String::from_utf8_lossy(text).trim().chars().filter(|c| !c.is_control()).take(300).collect()
}

/// Ends when the session is dropped and everything is written, or when nothing can be written.
async fn send(mut output: impl AsyncWrite + Unpin, mut requests: mpsc::Receiver<(u32, Request)>) {
    while let Some((id, request)) = requests.recv().await {
        let (first, data) = request.encode(id);
        let mut packet = first.chain(data);
        let written = async {
            output.write_all_buf(&mut packet).await?;
            output.flush().await
        };
        if written.await.is_err() {
            return;
        }
    }
    let _is_told = output.shutdown().await.is_ok();
}

/// Hands answers out until the other side ends or says nonsense; gives the reason.
async fn receive(mut input: impl AsyncRead + Unpin, waiting: &Waiting) -> String {
    loop {
        let packet = match packet(&mut input).await {
            Ok(Some(packet)) => packet,
            Ok(None) => return "the connection ended".to_owned(),
            Err(reason) => return reason,
        };
        match Answer::decode(packet.freeze()) {
            Ok((id, answer)) => {
                if !waiting.answer(id, answer) {
                    return "the server answered what nobody had asked".to_owned();
                }
            }
            Err(malformed) => return format!("the server sent a packet that is none: {}", malformed.0),
        }
    }
}

async fn packet(input: &mut (impl AsyncRead + Unpin)) -> Result<Option<BytesMut>, String> {
    let mut length = [0; 4];
    match input.read(&mut length[..1]).await {
        Ok(0) => return Ok(None),
        Ok(_) => {}
        Err(error) => return Err(format!("the connection broke: {error}")),
    }
    let broke = |error| format!("the connection broke in the middle of an answer: {error}");
    input.read_exact(&mut length[1..]).await.map_err(broke)?;
    let length = u32::from_be_bytes(length) as usize;
    if length == 0 || length > MAX_PACKET_BYTES {
        return Err(format!("the server announced a packet of {length} bytes"));
    }
    let mut packet = BytesMut::zeroed(length);
    input.read_exact(&mut packet).await.map_err(broke)?;
    Ok(Some(packet))
}

#[cfg(test)]
mod tests;

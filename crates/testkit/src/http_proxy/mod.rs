//! A way to an HTTP server on which things go wrong: the proxy looks at each request and does to it what the test says.
//!
//! It passes requests on as they are, host and signature included, each by a connection of its own.

mod exchange;
mod message;
mod tunnel;

pub use exchange::{Canned, Exchange};
pub use tunnel::Tunnel;

use crate::acceptor::{Acceptor, Connections, locked};
use crate::data::mix;
use crate::wait::PATIENCE;
use message::{Head, Length, body};
use std::io::{self, BufRead, BufReader, Read as _, Write};
use std::net::TcpStream;
use std::sync::{Arc, Mutex};
use std::time::Duration;

/// A request, as the proxy sees it before anything is done.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Seen {
    /// Which it is, from 0.
    pub number: u64,
    /// `GET` and so on.
    pub method: String,
    /// Path and query.
    pub target: String,
    /// All of the head, first line and headers.
    pub head: String,
    /// Whether something was done to it.
    pub has_fault: bool,
}

impl Seen {
    /// Whether the contents of an object are asked for, and not a listing.
    pub fn reads_object(&self) -> bool {
        self.method == "GET" && !self.target.contains('?')
    }
}

/// What becomes of a request.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Fate {
    /// It is passed on.
    Pass,
    /// It is passed on after a while.
    Late(Duration),
    /// The connection is reset before anything is passed on.
    ResetBefore,
    /// Half of the request is passed on, then both connections are reset.
    ResetInRequest,
    /// The server does it, and the connection is reset before anything of the answer comes.
    LoseAnswer,
    /// The connection is reset after half of the answer's content.
    ResetInAnswer,
    /// One byte of the answer's content is another; which one, the number says.
    Damage(u64),
    /// The answer's content comes a byte at a time, with this pause before each.
    Trickle(Duration),
    /// The request is taken a byte at a time, with this pause before each.
    TrickleRequest(Duration),
    /// The server is not asked: this is the answer.
    Answer(Canned),
    /// The server does it, and what is told of that is up to [`HttpProxy::teller`].
    Retell,
}

type Plan = Box<dyn FnMut(&Seen) -> Fate + Send>;
type Teller = Box<dyn FnMut(&Exchange) -> Option<Canned> + Send>;

struct Shared {
    server: u16,
    plan: Mutex<Plan>,
    teller: Mutex<Teller>,
    log: Mutex<Vec<Seen>>,
}

/// A running proxy. Dropping it ends its connections.
pub struct HttpProxy {
    acceptor: Acceptor,
    shared: Arc<Shared>,
}

impl std::fmt::Debug for HttpProxy {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("HttpProxy").field("acceptor", &self.acceptor).finish_non_exhaustive()
    }
}

impl HttpProxy {
    /// A proxy to the server at this port of the loopback address, on a free port; it passes everything on.
    ///
    /// # Panics
    /// When it cannot listen.
    #[allow(clippy::panic)]
    pub fn start(server: u16) -> Self {
        let shared = Arc::new(Shared {
            server,
            plan: Mutex::new(Box::new(|_| Fate::Pass)),
            teller: Mutex::new(Box::new(|_| None)),
            log: Mutex::default(),
        });
        let of_connections = Arc::clone(&shared);
        let acceptor = Acceptor::start(move |client, connections| {
            let mut one = Connection::new(client, &of_connections, connections)?;
            let outcome = one.serve();
            connections.let_go(&one.to_client);
            outcome
        });
        Self { acceptor, shared }
    }

    /// The port.
    pub fn port(&self) -> u16 {
        self.acceptor.port()
    }

    /// Decides from now on what becomes of requests.
    pub fn plan(&self, plan: impl FnMut(&Seen) -> Fate + Send + 'static) {
        *locked(&self.shared.plan) = Box::new(plan);
    }

    /// Tells from now on what the server is said to have answered, where the plan says [`Fate::Retell`]; `None` for what it said
    /// itself.
    pub fn teller(&self, teller: impl FnMut(&Exchange) -> Option<Canned> + Send + 'static) {
        *locked(&self.shared.teller) = Box::new(teller);
    }

    /// Decides from now on, and forgets what was seen.
    pub fn restart(&self, plan: impl FnMut(&Seen) -> Fate + Send + 'static) {
        self.plan(plan);
        locked(&self.shared.log).clear();
    }

    /// Every request since the (re)start, in the order in which they came.
    pub fn log(&self) -> Vec<Seen> {
        locked(&self.shared.log).clone()
    }

    /// How many requests there were.
    pub fn requests(&self) -> usize {
        locked(&self.shared.log).len()
    }

    /// To how many of them something was done.
    pub fn faults(&self) -> usize {
        locked(&self.shared.log).iter().filter(|seen| seen.has_fault).count()
    }
}

/// One client's connection.
struct Connection<'a> {
    shared: &'a Shared,
    connections: &'a Connections,
    to_client: TcpStream,
    from_client: BufReader<TcpStream>,
}

impl<'a> Connection<'a> {
    fn new(client: TcpStream, shared: &'a Shared, connections: &'a Connections) -> io::Result<Self> {
        client.set_nodelay(true)?;
        Ok(Self {
            shared,
            connections,
            to_client: client.try_clone()?,
            from_client: BufReader::with_capacity(64 << 10, client),
        })
    }

    fn serve(&mut self) -> io::Result<()> {
        while let Some(head) = Head::read(&mut self.from_client)? {
            let fate = self.decide(&head);
            let goes_on = self.apply(&head, fate)?;
            if !goes_on || self.connections.is_stopped() {
                break;
            }
        }
        Ok(())
    }

    fn decide(&self, head: &Head) -> Fate {
        let mut log = locked(&self.shared.log);
        let mut seen = Seen {
            number: log.len() as u64,
            method: head.word(0).to_owned(),
            target: head.word(1).to_owned(),
            head: String::from_utf8_lossy(&head.raw).into_owned(),
            has_fault: false,
        };
        let fate = locked(&self.shared.plan)(&seen);
        seen.has_fault = !matches!(fate, Fate::Pass | Fate::Late(_) | Fate::Retell);
        log.push(seen);
        fate
    }

    /// Whether the connection may be used again.
    fn apply(&mut self, head: &Head, fate: Fate) -> io::Result<bool> {
        let length = head.request_length();
        match fate {
            Fate::Answer(canned) => {
                body(&mut self.from_client, length, &mut |_, _| Ok(()))?;
                self.to_client.write_all(&rendered(&canned))?;
                return Ok(true);
            }
            Fate::ResetBefore => return Ok(self.reset()),
            Fate::Late(pause) => std::thread::sleep(pause),
            _ => {}
        }
        let server = TcpStream::connect(("127.0.0.1", self.shared.server))?;
        server.set_nodelay(true)?;
        server.set_read_timeout(Some(PATIENCE))?;
        let mut to_server = server.try_clone()?;
        to_server.write_all(&head.raw)?;
        if fate == Fate::ResetInRequest {
            let Length::Bytes(bytes) = length else { return Ok(self.reset()) };
            body(&mut self.from_client, Length::Bytes(bytes / 2), &mut |piece, _| {
                to_server.write_all(piece)
            })?;
            linger_not(&server);
            return Ok(self.reset());
        }
        if let Fate::TrickleRequest(pause) = fate {
            let mut one = [0];
            while !self.connections.is_stopped() && self.from_client.read(&mut one)? == 1 {
                std::thread::sleep(pause);
                to_server.write_all(&one)?;
            }
            return Ok(false);
        }
        if fate == Fate::Retell {
            return self.retell(head, length, &mut to_server, &mut BufReader::new(server));
        }
        body(&mut self.from_client, length, &mut |piece, _| to_server.write_all(piece))?;
        self.answer(head.word(0), &mut BufReader::with_capacity(64 << 10, server), &fate)
    }

    fn retell(
        &mut self,
        head: &Head,
        length: Length,
        to_server: &mut impl Write,
        server: &mut BufReader<TcpStream>,
    ) -> io::Result<bool> {
        let content = |from: &mut dyn BufRead, length, pass: &mut dyn FnMut(&[u8]) -> io::Result<()>| {
            let mut content = Vec::new();
            body(&mut &mut *from, length, &mut |piece, is_content| {
                content.extend(piece.iter().filter(|_| is_content));
                pass(piece)
            })?;
            io::Result::Ok(content)
        };
        let asked = content(&mut self.from_client, length, &mut |piece| to_server.write_all(piece))?;
        let Some(answer_head) = Head::read(server)? else { return Ok(self.reset()) };
        let length = answer_head.answer_length(head.word(0));
        let mut raw = answer_head.raw.clone();
        let answer = content(server, length, &mut |piece| raw.write_all(piece))?;
        let exchange = Exchange {
            method: head.word(0).to_owned(),
            target: head.word(1).to_owned(),
            head: String::from_utf8_lossy(&head.raw).into_owned(),
            body: asked,
            status: answer_head.word(1).parse().unwrap_or_default(),
            answer_head: String::from_utf8_lossy(&answer_head.raw).into_owned(),
            answer,
        };
        let told = locked(&self.shared.teller)(&exchange);
        self.to_client.write_all(&told.map_or(raw, |told| rendered(&told)))?;
        Ok(length != Length::UntilEnd)
    }

    fn answer(&mut self, method: &str, server: &mut BufReader<TcpStream>, fate: &Fate) -> io::Result<bool> {
        let Some(head) = Head::read(server)? else { return Ok(self.reset()) };
        let length = head.answer_length(method);
        if *fate == Fate::LoseAnswer {
            body(server, length, &mut |_, _| Ok(()))?;
            return Ok(self.reset());
        }
        self.to_client.write_all(&head.raw)?;
        let bytes = if let Length::Bytes(bytes) = length { bytes } else { 0 };
        match fate {
            Fate::ResetInAnswer => {
                body(server, Length::Bytes(bytes / 2), &mut |piece, _| self.to_client.write_all(piece))?;
                return Ok(self.reset());
            }
            Fate::Damage(number) if bytes > 0 => {
                let (at, mut from) = (mix(*number) % bytes, 0);
                body(server, length, &mut |piece, _| {
                    let mut piece = piece.to_vec();
                    let inside = usize::try_from(at.wrapping_sub(from)).ok();
                    if let Some(byte) = inside.and_then(|inside| piece.get_mut(inside)) {
                        *byte ^= 1 << (number % 8);
                    }
                    from += piece.len() as u64;
                    self.to_client.write_all(&piece)
                })?;
            }
            Fate::Trickle(pause) => body(server, length, &mut |piece, _| {
                for byte in piece {
                    if self.connections.is_stopped() {
                        return Err(io::ErrorKind::Interrupted.into());
                    }
                    std::thread::sleep(*pause);
                    self.to_client.write_all(&[*byte])?;
                }
                Ok(())
            })?,
            _ => body(server, length, &mut |piece, _| self.to_client.write_all(piece))?,
        }
        Ok(length != Length::UntilEnd)
    }

    /// The next close is a reset; the connection is not used again.
    fn reset(&self) -> bool {
        linger_not(&self.to_client);
        false
    }
}

/// Closing it sends a reset, and what is under way is lost.
fn linger_not(stream: &TcpStream) {
    let _is_set = rustix::net::sockopt::set_socket_linger(stream, Some(Duration::ZERO)).is_ok();
}

fn rendered(canned: &Canned) -> Vec<u8> {
    let length_bytes = canned.announced_bytes.unwrap_or(canned.body.len() as u64);
    let mut text = format!("HTTP/1.1 {}\r\ncontent-length: {length_bytes}\r\n", canned.status);
    for header in &canned.headers {
        text.push_str(&format!("{header}\r\n"));
    }
    text.push_str(&format!("\r\n{}", canned.body));
    text.into_bytes()
}

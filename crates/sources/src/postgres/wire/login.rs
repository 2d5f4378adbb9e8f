//! From a connected socket to a server that waits for statements: TLS, start-up message, password.

use super::address::{Address, ChannelBinding, Endpoint, SslMode};
use super::channel::{Channel, Frame, Wait};
use super::connection::Mode;
use super::error::{ServerError, protocol, shown, unavailable};
use super::{limits, tls};
use crate::net::socket::{self, Place, Socket, time_left};
use bytes::BytesMut;
use fallible_iterator::FallibleIterator as _;
use postgres_protocol::authentication::md5_hash;
use postgres_protocol::authentication::sasl::{self, SCRAM_SHA_256, SCRAM_SHA_256_PLUS, ScramSha256};
use postgres_protocol::message::backend::{AuthenticationSaslBody, Message};
use postgres_protocol::message::frontend;
use retoma_core::error::codes;
use retoma_core::{Error, ErrorKind, Result, Secret};
use std::collections::BTreeMap;
use std::io::{Read, Write};
use std::time::Instant;

/// A connection that is logged in.
pub(super) struct LoggedIn {
    pub(super) channel: Channel,
    pub(super) parameters: BTreeMap<String, String>,
}

/// Logs in at the first endpoint that takes connections.
pub(super) fn log_in(address: &Address, mode: Mode, deadline: Instant) -> Result<LoggedIn> {
    let mut last = None;
    for endpoint in address.endpoints() {
        match log_in_at(address, endpoint, mode, deadline) {
            // The next place is for servers that listen elsewhere, not for those that refuse us.
            Err(error) if error.code() == codes::POSTGRES_UNAVAILABLE => {
                last.get_or_insert(error);
            }
            other => return other,
        }
    }
    Err(last.unwrap_or_else(|| Error::internal("the address has no endpoint")))
}

fn log_in_at(address: &Address, endpoint: &Endpoint, mode: Mode, deadline: Instant) -> Result<LoggedIn> {
    let wants_tls = matches!(endpoint, Endpoint::Tcp { .. }) && address.ssl_mode != SslMode::Disable;
    let result = Login::begin(address, endpoint, mode, deadline, wants_tls)?.run();
    match result {
        // `prefer`: what fails with TLS is tried without, as by libpq (a certificate of yesterday, `hostnossl`).
        Err(error)
            if wants_tls
                && address.ssl_mode == SslMode::Prefer
                && address.channel_binding != ChannelBinding::Require
                && super::sqlstate(&error) == Some("28000") =>
        {
            Login::begin(address, endpoint, mode, deadline, false)?.run()
        }
        other => other,
    }
}

struct Login<'a> {
    address: &'a Address,
    endpoint: &'a Endpoint,
    mode: Mode,
    deadline: Instant,
    channel: Channel,
    scram: Scram,
    /// Whether the login by SCRAM that was begun covers the TLS connection.
    is_plus: bool,
}

/// How far a login by SCRAM is.
enum Scram {
    Unused,
    Begun(Box<ScramSha256>),
    Continued(Box<ScramSha256>),
    /// The server has proved that it knows the password; whether the proof covers the TLS connection.
    Proved {
        is_bound: bool,
    },
}

impl<'a> Login<'a> {
    /// Connects, with TLS when it is wanted and to be had.
    fn begin(
        address: &'a Address,
        endpoint: &'a Endpoint,
        mode: Mode,
        deadline: Instant,
        wants_tls: bool,
    ) -> Result<Self> {
        let socket = connect(endpoint, deadline)?;
        let who = endpoint.to_string();
        let channel = match endpoint {
            Endpoint::Tcp { host, .. } if wants_tls => {
                match secure(address, host, endpoint, socket, deadline) {
                    Err(error)
                        if address.ssl_mode == SslMode::Prefer && error.code() == codes::POSTGRES_TLS =>
                    {
                        Channel::plain(connect(endpoint, deadline)?, who)
                    }
                    other => other?,
                }
            }
            _ => Channel::plain(socket, who),
        };
        Ok(Self { address, endpoint, mode, deadline, channel, scram: Scram::Unused, is_plus: false })
    }

    fn run(mut self) -> Result<LoggedIn> {
        self.send_startup()?;
        let mut parameters = BTreeMap::new();
        let mut is_in = false;
        for _ in 0..limits::LOGIN_MESSAGES {
            let message = match self.channel.receive(Wait::Until(self.deadline))? {
                Some(Frame::Known(message)) => message,
                Some(Frame::CopyBoth) => return Err(self.odd("a copy during the login")),
                None => return Err(unavailable(self.channel.who(), "does not finish the login in time")),
            };
            match message {
                Message::ErrorResponse(body) => {
                    return Err(ServerError::read(body.fields()).into_error(self.channel.who(), true));
                }
                Message::NoticeResponse(_) | Message::BackendKeyData(_) => {}
                Message::ParameterStatus(body) => {
                    let (Ok(name), Ok(value)) = (body.name(), body.value()) else { continue };
                    if parameters.len() < limits::PARAMETERS {
                        parameters.insert(name.to_owned(), value.to_owned());
                    }
                }
                Message::AuthenticationOk => {
                    self.check_proof()?;
                    is_in = true;
                    self.channel.set_limit(limits::MESSAGE_BYTES);
                }
                Message::ReadyForQuery(_) if is_in => {
                    return Ok(LoggedIn { channel: self.channel, parameters });
                }
                _ if is_in => return Err(self.odd("a message that belongs into no login")),
                other => self.authenticate(&other)?,
            }
        }
        Err(self.odd("a login without an end"))
    }

    fn send_startup(&mut self) -> Result<()> {
        let address = self.address;
        let mut parameters = vec![
            ("user", address.user()),
            ("database", address.database()),
            ("application_name", address.application_name()),
            ("client_encoding", "UTF8"),
            ("DateStyle", "ISO, YMD"),
            ("TimeZone", "UTC"),
        ];
        parameters.extend(self.mode.parameter().map(|value| ("replication", value)));
        parameters.extend(address.options().map(|options| ("options", options)));
        self.channel.put(|buffer| frontend::startup_message(parameters, buffer))?;
        self.channel.send()
    }

    fn authenticate(&mut self, message: &Message) -> Result<()> {
        match message {
            Message::AuthenticationCleartextPassword => {
                if !self.channel.is_private() {
                    return Err(self.refused(
                        "asks for the password in clear text over a network",
                        "use `sslmode=verify-full`, or let the server use `scram-sha-256` in `pg_hba.conf`",
                    ));
                }
                let password = self.password()?;
                self.send_password(password.expose().as_bytes())
            }
            Message::AuthenticationMd5Password(body) => {
                let password = self.password()?;
                let hash =
                    md5_hash(self.address.user().as_bytes(), password.expose().as_bytes(), body.salt());
                self.send_password(hash.as_bytes())
            }
            Message::AuthenticationSasl(body) => self.begin_scram(body),
            Message::AuthenticationSaslContinue(body) => self.continue_scram(body.data()),
            Message::AuthenticationSaslFinal(body) => self.finish_scram(body.data()),
            Message::AuthenticationGss
            | Message::AuthenticationKerberosV5
            | Message::AuthenticationSspi
            | Message::AuthenticationScmCredential
            | Message::AuthenticationGssContinue(_) => Err(self.refused(
                "asks for a login that is not supported here (Kerberos or the like)",
                "let `pg_hba.conf` use `scram-sha-256` for this user",
            )),
            _ => Err(self.odd("a message that belongs into no login")),
        }
    }

    fn password(&self) -> Result<Secret<String>> {
        // Programs that stream WAL look for this name in the password file.
        let database = if self.mode == Mode::Replication { "replication" } else { self.address.database() };
        self.address.password(self.endpoint, database).ok_or_else(|| match self.address.exposed_pass_file() {
            Some(path) => {
                let what = format!("asks for a password, and `{}` may be read by others, so it is not used", path.display());
                self.refused(&what, "let only its owner read it: `chmod 0600`")
            }
            None => self.refused(
                "asks for a password, and there is none",
                "set `PGPASSWORD`, put it into `~/.pgpass` (mode 0600), or into the address that a variable holds",
            ),
        })
    }

    fn send_password(&mut self, password: &[u8]) -> Result<()> {
        self.channel.put(|buffer| frontend::password_message(password, buffer))?;
        self.channel.send()
    }

    fn begin_scram(&mut self, body: &AuthenticationSaslBody) -> Result<()> {
        if !matches!(self.scram, Scram::Unused) {
            return Err(self.odd("two logins in one"));
        }
        let offered: Vec<String> =
            body.mechanisms().map(|name| Ok(name.to_owned())).collect().map_err(|error| self.odd(error))?;
        let offers = |mechanism: &str| offered.iter().any(|name| name == mechanism);
        let end_point = match self.address.channel_binding {
            ChannelBinding::Disable => None,
            _ => self.channel.tls_stream().and_then(tls::end_point),
        };
        let (mechanism, binding) = match end_point {
            Some(hash) if offers(SCRAM_SHA_256_PLUS) => {
                (SCRAM_SHA_256_PLUS, sasl::ChannelBinding::tls_server_end_point(hash))
            }
            Some(_) if offers(SCRAM_SHA_256) => (SCRAM_SHA_256, sasl::ChannelBinding::unrequested()),
            None if offers(SCRAM_SHA_256) => (SCRAM_SHA_256, sasl::ChannelBinding::unsupported()),
            _ => {
                return Err(
                    self.refused("offers no way to log in that is supported", "let it use `scram-sha-256`")
                );
            }
        };
        if self.address.channel_binding == ChannelBinding::Require && mechanism != SCRAM_SHA_256_PLUS {
            return Err(self.unbound());
        }
        let scram = ScramSha256::new(self.password()?.expose().as_bytes(), binding);
        self.channel.put(|buffer| frontend::sasl_initial_response(mechanism, scram.message(), buffer))?;
        self.channel.send()?;
        self.scram = Scram::Begun(Box::new(scram));
        // Remembered until the proof, which is what makes it true.
        self.is_plus = mechanism == SCRAM_SHA_256_PLUS;
        Ok(())
    }

    fn continue_scram(&mut self, data: &[u8]) -> Result<()> {
        let Scram::Begun(mut scram) = std::mem::replace(&mut self.scram, Scram::Unused) else {
            return Err(self.odd("an answer to a login that was not begun"));
        };
        scram.update(data).map_err(|error| self.odd(error))?;
        self.channel.put(|buffer| frontend::sasl_response(scram.message(), buffer))?;
        self.channel.send()?;
        self.scram = Scram::Continued(scram);
        Ok(())
    }

    fn finish_scram(&mut self, data: &[u8]) -> Result<()> {
        let Scram::Continued(mut scram) = std::mem::replace(&mut self.scram, Scram::Unused) else {
            return Err(self.odd("the end of a login that was not begun"));
        };
        scram.finish(data).map_err(|_| {
            self.refused(
                "does not prove that it knows the password: it may be another server",
                "check host and port; use `sslmode=verify-full`",
            )
        })?;
        self.scram = Scram::Proved { is_bound: self.is_plus };
        Ok(())
    }

    /// The server says that we are in: a login by SCRAM must have proved it, and what the address requires must hold.
    fn check_proof(&self) -> Result<()> {
        match self.scram {
            Scram::Begun(_) | Scram::Continued(_) => {
                Err(self.odd("a login that ends before the server has proved itself"))
            }
            Scram::Proved { is_bound: true } => Ok(()),
            Scram::Unused | Scram::Proved { is_bound: false } => {
                if self.address.channel_binding == ChannelBinding::Require {
                    Err(self.unbound())
                } else {
                    Ok(())
                }
            }
        }
    }

    fn unbound(&self) -> Error {
        self.refused(
            "does not tie the login to the TLS connection, as the address requires",
            "use `sslmode=verify-full`, or take `channel_binding=require` out of the address",
        )
    }

    fn refused(&self, what: &str, hint: &'static str) -> Error {
        let message = format!("PostgreSQL at `{}` {what}", self.channel.who());
        Error::new(ErrorKind::Unauthorized, codes::POSTGRES_LOGIN, message).with_hint(hint)
    }

    fn odd(&self, what: impl std::fmt::Display) -> Error {
        protocol(self.channel.who(), shown(what.to_string().as_bytes()))
    }
}

/// A socket to the server.
fn connect(endpoint: &Endpoint, deadline: Instant) -> Result<Socket> {
    let path = endpoint.socket().unwrap_or_default();
    let place = match endpoint {
        Endpoint::Tcp { host, port } => Place::Tcp(host, *port),
        Endpoint::Unix { .. } => Place::Unix(&path),
    };
    Socket::connect(place, deadline)
        .map_err(|error| unavailable(&endpoint.to_string(), socket::reason(&error)).with_source(error))
}

/// Asks for TLS and begins it. The server's word to go on is read alone, so that nothing can be slipped in behind it.
fn secure(
    address: &Address,
    host: &str,
    endpoint: &Endpoint,
    mut socket: Socket,
    deadline: Instant,
) -> Result<Channel> {
    let who = endpoint.to_string();
    let mut request = BytesMut::new();
    frontend::ssl_request(&mut request);
    let mut reply = [0];
    time_left(deadline)
        .and_then(|left| socket.set_read_timeout(left))
        .and_then(|()| socket.write_all(&request))
        .and_then(|()| socket.read_exact(&mut reply))
        .map_err(|error| {
            unavailable(&who, format!("breaks off before the login: {error}")).with_source(error)
        })?;
    match reply[0] {
        b'S' => Ok(Channel::tls(tls::handshake(address, host, socket, deadline)?, who)),
        b'N' if address.ssl_mode == SslMode::Prefer => Ok(Channel::plain(socket, who)),
        b'N' => {
            let message = format!("PostgreSQL at `{who}` has no TLS, and the address asks for it");
            Err(Error::new(ErrorKind::Unsupported, codes::POSTGRES_TLS, message)
                .with_hint("switch `ssl` on in the server; `sslmode=disable` is for sockets and loopback"))
        }
        // The server could not even start a process for us; its text is not to be trusted before TLS.
        b'E' => Err(unavailable(&who, "fails before the login; see its log")),
        _ => Err(protocol(&who, "no answer to the question for TLS")),
    }
}

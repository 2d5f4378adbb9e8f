//! Alerts as e-mail. Each address gets a message of its own, so that one that is refused holds no other up.
//!
//! No header is made of what a server or a file said: the subject has names of ours, printable letters only; the rest is in
//! the body, which is encoded.

use super::{Difference, LIMIT, Sender, Told};
use crate::open;
use lettre::message::header::{ContentType, HeaderName, HeaderValue};
use lettre::message::{Mailbox, Message};
use lettre::transport::smtp::authentication::Credentials;
use lettre::transport::smtp::client::{Certificate, Tls, TlsParameters};
use lettre::{Address, SmtpTransport, Transport as _};
use retoma_core::manifest::{Email, MailSecurity};
use retoma_core::{Error, ErrorKind, Result, ResultExt as _, error::codes};
use std::fmt::Write as _;

/// The largest file of certificates, in bytes.
const CA_LIMIT_BYTES: u64 = 1 << 20;
/// No header gets longer words than these, in characters.
const NAME_LIMIT: usize = 100;

impl Sender {
    /// Tells one address what is new.
    ///
    /// # Errors
    /// `R0956` when it was not taken; a secret or a file of certificates that cannot be read.
    pub(super) fn mail(&self, email: &Email, to: &str, news: &Difference, active: &[Told]) -> Result<()> {
        let message = self.message(email, to, news, active)?;
        transport(email)?.send(&message).map(drop).map_err(|error| not_taken(email, &error))
    }

    fn message(&self, email: &Email, to: &str, news: &Difference, active: &[Told]) -> Result<Message> {
        let (from, to) = (mailbox(&email.from)?, mailbox(to)?);
        let id = format!("<{}@{}>", random_name()?, from.email.domain());
        let automatic =
            HeaderValue::new(HeaderName::new_from_ascii_str("Auto-Submitted"), "auto-generated".to_owned());
        Message::builder()
            .from(from)
            .to(to)
            .subject(self.subject(news))
            .message_id(Some(id))
            .raw_header(automatic)
            .header(ContentType::TEXT_PLAIN)
            .body(self.body(news, active))
            .map_err(|error| Error::internal(format!("a mail: {error}")))
    }

    /// What changed first, and how much else.
    fn subject(&self, news: &Difference) -> String {
        let raised = news.raised.iter().map(|told| ("raised", told));
        let mut changes = raised.chain(news.cleared.iter().map(|told| ("cleared", told)));
        let (what, first) = changes.next().map_or(("nothing", String::new()), |(what, told)| {
            let about = told.component.as_deref().or(told.repository.as_deref());
            (what, about.map_or_else(|| told.alert.clone(), |about| format!("{} of {about}", told.alert)))
        });
        let more = match changes.count() {
            0 => String::new(),
            count => format!(", and {count} more"),
        };
        let name = |text: &str| plain(text).chars().take(NAME_LIMIT).collect::<String>();
        format!("{} on {}: {what} {}{more}", name(&self.service), name(&self.host), name(&first))
    }

    fn body(&self, news: &Difference, active: &[Told]) -> String {
        let mut text = String::new();
        for (title, alerts) in
            [("Raised", &news.raised[..]), ("Cleared", &news.cleared), ("Active now", active)]
        {
            // Writing into a string cannot fail.
            writeln!(text, "{title}: {}", alerts.len()).ok();
            for told in alerts {
                let about = [("component", &told.component), ("repository", &told.repository)];
                let about =
                    about.iter().filter_map(|(word, name)| Some(format!(", {word} {}", name.as_ref()?)));
                let line = format!("{} ({}){}", told.alert, told.severity, about.collect::<String>());
                writeln!(text, "- {}\n  since {}: {}", plain(&line), told.since, plain(&told.summary)).ok();
            }
            text.push('\n');
        }
        writeln!(text, "From the agent of {} on {}.", plain(&self.service), plain(&self.host)).ok();
        text
    }
}

/// Without anything that ends a line or changes how the rest is shown.
fn plain(text: &str) -> String {
    let may_show = |c: char| {
        !c.is_control()
            && !matches!(c, '\u{200B}'..='\u{200F}' | '\u{2028}'..='\u{202E}' | '\u{2066}'..='\u{2069}')
    };
    text.chars().map(|c| if may_show(c) { c } else { ' ' }).collect()
}

fn mailbox(address: &str) -> Result<Mailbox> {
    let address: Address =
        address.parse().map_err(|error| Error::internal(format!("`{address}` is no address: {error}")))?;
    Ok(Mailbox::new(None, address))
}

fn random_name() -> Result<String> {
    let mut random = [0; 16];
    retoma_repo::crypto::random(&mut random)?;
    Ok(format!("{:032x}", u128::from_ne_bytes(random)))
}

fn transport(email: &Email) -> Result<SmtpTransport> {
    let tls = match email.security {
        MailSecurity::None => Tls::None,
        MailSecurity::StartTls => Tls::Required(tls(email)?),
        MailSecurity::Tls => Tls::Wrapper(tls(email)?),
    };
    let builder =
        SmtpTransport::builder_dangerous(&email.host).port(email.port).tls(tls).timeout(Some(LIMIT));
    Ok(match &email.login {
        Some((user, password)) => {
            let password = open::secret(password)?.expose().clone();
            builder.credentials(Credentials::new(user.clone(), password)).build()
        }
        None => builder.build(),
    })
}

fn tls(email: &Email) -> Result<TlsParameters> {
    let unusable = |what: String| {
        Error::new(ErrorKind::Invalid, codes::MAIL_REFUSED, what).with_hint(
            "look at `ca_file` in `[alerts.email]`: it holds certificates between BEGIN and END lines",
        )
    };
    let mut builder = TlsParameters::builder(email.host.clone());
    if let Some(path) = &email.ca_file {
        let shown = path.display();
        let length = std::fs::metadata(path).map_err(|error| Error::io(shown.to_string(), error))?.len();
        if length > CA_LIMIT_BYTES {
            return Err(unusable(format!("`{shown}` is too long for certificates")));
        }
        let pem = std::fs::read(path)
            .map_err(|error| Error::io(shown.to_string(), error))
            .context("read the certificates of the mail server")?;
        let certificate =
            Certificate::from_pem(&pem).map_err(|_| unusable(format!("`{shown}` holds no certificate")))?;
        builder = builder.add_root_certificate(certificate);
    }
    builder
        .build_rustls()
        .map_err(|error| unusable(format!("TLS with the mail server cannot be set up: {error}")))
}

/// Why a message was not taken. What the server said is not repeated but for its code: it may repeat what it was told.
fn not_taken(email: &Email, error: &lettre::transport::smtp::Error) -> Error {
    let server = format!("{}:{}", email.host, email.port);
    let (what, hint) = match error.status().map(|code| code.to_string()) {
        Some(code) if matches!(&*code, "530" | "534" | "535" | "538") => {
            (format!("refused to log us in ({code})"), "look at `user` and `password` in `[alerts.email]`")
        }
        Some(code) => (
            format!("refused the message ({code})"),
            "look at `from` and `to` in `[alerts.email]`, and at the server's log",
        ),
        None if is_tls(error) => (
            "showed no certificate that is trusted".to_owned(),
            "look at `security` and `ca_file` in `[alerts.email]`",
        ),
        None if error.is_timeout() => {
            ("did not answer in time".to_owned(), "look at `server` in `[alerts.email]`")
        }
        None if error.is_client() => (
            "offers no way to send or to log in that we know".to_owned(),
            "look at `security` and `user` in `[alerts.email]`",
        ),
        None => ("cannot be reached".to_owned(), "look at `server` in `[alerts.email]`"),
    };
    Error::new(ErrorKind::Unavailable, codes::MAIL_REFUSED, format!("the mail server `{server}` {what}"))
        .with_hint(format!("{hint}; it is tried again every minute"))
}

/// Whether TLS was the trouble. The handshake begins with the first bytes that are read, and fails as reading does.
fn is_tls(error: &lettre::transport::smtp::Error) -> bool {
    let first = std::error::Error::source(error);
    let mut causes = std::iter::successors(first, |error| error.source());
    let is_invalid = |error: &std::io::Error| error.kind() == std::io::ErrorKind::InvalidData;
    error.is_tls() || causes.any(|cause| cause.downcast_ref().is_some_and(is_invalid))
}

#[cfg(test)]
mod tests;
